"""A client of the generation server that knows nothing but gRPC: every message comes from the server's
reflection. Calls every method of every service once and checks what comes back; ends with 1 and a
sentence where something is not as the contract says.

usage: grpc_client.py HOST:PORT TOKEN
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

TIMEOUT = 120


class Client:
    """Calls methods by name, with requests as keyword arguments."""

    def __init__(self, channel, token):
        self.channel = channel
        self.metadata = [("authorization", f"Bearer {token}")]
        database = ProtoReflectionDescriptorDatabase(channel)
        self.services = sorted(database.get_services())
        self.pool = descriptor_pool.DescriptorPool(database)
        self.called = set()

    def methods(self, service):
        descriptor = self.pool.FindServiceByName(service)
        return {f"{service}/{method.name}" for method in descriptor.methods}

    def message(self, name, **fields):
        descriptor = self.pool.FindMessageTypeByName(name)
        return message_factory.GetMessageClass(descriptor)(**fields)

    def call(self, path, *requests, timeout=TIMEOUT, metadata=None):
        """One answer, or an iterator of them. Streams of requests are given one by one."""
        service, name = path.split("/")
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        request_class = message_factory.GetMessageClass(method.input_type)
        reply_class = message_factory.GetMessageClass(method.output_type)
        many_in, many_out = method.client_streaming, method.server_streaming
        kind = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }[many_in, many_out]
        stub = kind(
            f"/{path}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=reply_class.FromString,
        )
        asked = iter(requests) if many_in else (requests or (request_class(),))[0]
        self.called.add(path)
        metadata = self.metadata if metadata is None else metadata
        return stub(asked, timeout=timeout, metadata=metadata)


def check(condition, *what):
    if not condition:
        sys.exit(f"not as the contract says: {what}")


def refused(code, call):
    """The call must end with the code; gives its details."""
    try:
        result = call()
        if hasattr(result, "__next__"):
            list(result)
    except grpc.RpcError as error:
        check(error.code() == code, error.code(), error.details())
        return error.details()
    sys.exit(f"expected {code}")


GENERATION, CONTROL = "genserver.v1.Generation", "genserver.v1.Control"


def request(client, **fields):
    fields = {"text": "Once upon a time", **fields}
    stopping = fields.pop("stopping", {"max_new_tokens": 8, "ignore_eos": True})
    return client.message("genserver.v1.GenerateRequest", stopping=stopping, **fields)


def generation(client):
    asked = request(
        client,
        request_id="one",
        sampling={"temperature": 0.8, "seed": 5, "num_sequences": 2, "logit_bias": {3: -1.5}},
        response={"num_candidates": 2},
    )
    whole = client.call(f"{GENERATION}/Generate", asked)
    check(whole.request_id == "one" and len(whole.outputs) == 2, whole)
    for index, output in enumerate(whole.outputs):
        check(output.index == index and len(output.token_ids) == 8, output)
        check(len(output.logprobs) == len(output.ranks) == len(output.candidates) == 8, output)
        check(all(len(each.tokens) == 2 for each in output.candidates), output)
        check(output.finish.weights.number == 1, output)
    check(whole.outputs[0].finish.seed == 5, whole)

    streamed, ends = {0: [], 1: []}, 0
    for chunk in client.call(f"{GENERATION}/GenerateStream", asked):
        streamed[chunk.output.index] += chunk.output.token_ids
        ends += chunk.output.HasField("finish")
    check(ends == 2, ends)
    for output in whole.outputs:
        check(streamed[output.index] == list(output.token_ids), "a stream is another answer")

    items = [
        client.message("genserver.v1.BatchRequest", request=request(client, request_id=str(index)))
        for index in range(20)
    ]
    items.append(client.message("genserver.v1.BatchRequest", request={"request_id": "wrong"}))
    answers = client.call(f"{GENERATION}/GenerateBatch", *items)
    first = next(answers)
    check(first.credits > 0 and first.WhichOneof("result") is None, first)
    results = {answer.request_id: answer for answer in answers}
    check(len(results) == 21 and all(each.credits == 1 for each in results.values()), results)
    check(results["wrong"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0], results["wrong"])
    texts = {results[str(index)].response.outputs[0].text for index in range(20)}
    check(len(texts) == 1, "equal prompts have equal answers")

    score = client.message(
        "genserver.v1.ScoreRequest", text="1 + 1 =", completion_text=" 2", append_eos=True
    )
    scored = client.call(f"{GENERATION}/Score", score)
    check(len(scored.token_ids) == len(scored.logprobs) == len(scored.ranks), scored)
    check(len(scored.token_ids) >= 2 and max(scored.logprobs) <= 0, scored)
    check(scored.num_context_tokens > 0, scored)

    wrong = request(client, sampling={"top_p": 2.0})
    told = refused(
        grpc.StatusCode.INVALID_ARGUMENT, lambda: client.call(f"{GENERATION}/Generate", wrong)
    )
    check("sampling.top_p" in told, told)
    refused(
        grpc.StatusCode.UNAUTHENTICATED,
        lambda: client.call(f"{GENERATION}/Generate", asked, metadata=[]),
    )


def control(client):
    info = client.call(f"{CONTROL}/GetServerInfo")
    check(info.limits.max_num_sequences >= 2 and info.limits.max_batch_items_under_way > 0, info)
    model = client.call(f"{CONTROL}/GetModelInfo")
    check(model.weights.number == 1 and model.vocab_size > 0, model)
    load = client.call(f"{CONTROL}/GetLoad")
    check(load.num_finished_total >= 24 and load.num_blocks_total > 0, load)

    endless = request(
        client, request_id="endless", stopping={"max_new_tokens": 60000, "ignore_eos": True}
    )
    stream = client.call(f"{GENERATION}/GenerateStream", endless)
    next(stream)
    abort = client.message("genserver.v1.AbortRequest", request_ids=["endless", "nobody"])
    check(client.call(f"{CONTROL}/Abort", abort).num_aborted == 1, "one was aborted")
    refused(grpc.StatusCode.CANCELLED, lambda: stream)

    again = request(
        client, request_id="late", stopping={"max_new_tokens": 60000, "ignore_eos": True}
    )
    late = client.call(f"{GENERATION}/GenerateStream", again, timeout=1)
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: late)

    reload = client.message("genserver.v1.ReloadCheckpointRequest", checkpoint="next")
    reloaded = client.call(f"{CONTROL}/ReloadCheckpoint", reload)
    check((reloaded.old_weights.number, reloaded.new_weights.number) == (1, 2), reloaded)
    answer = client.call(f"{GENERATION}/Generate", request(client))
    check(answer.outputs[0].finish.weights.checkpoint == "next", answer)


def health_of(client):
    asked = client.message("grpc.health.v1.HealthCheckRequest", service=GENERATION)
    reply = client.call("grpc.health.v1.Health/Check", asked)
    return reply.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[reply.status].name


def health(client):
    check(health_of(client) == "SERVING", "it serves")
    watched = client.call("grpc.health.v1.Health/Watch")
    next(watched)
    watched.cancel()
    if "grpc.health.v1.Health/List" in client.methods("grpc.health.v1.Health"):
        client.call("grpc.health.v1.Health/List")


def drain(client):
    asked = client.message("genserver.v1.DrainRequest", wait_ms=20000)
    check(client.call(f"{CONTROL}/Drain", asked).num_unfinished == 0, "nothing was left")
    check(health_of(client) == "NOT_SERVING", "it drains")
    refused(
        grpc.StatusCode.UNAVAILABLE,
        lambda: client.call(f"{GENERATION}/Generate", request(client)),
    )


def main():
    address, token = sys.argv[1:]
    with grpc.insecure_channel(address) as channel:
        client = Client(channel, token)
        generation(client)
        control(client)
        health(client)
        drain(client)
        ours = [name for name in client.services if not name.startswith("grpc.reflection.")]
        methods = set().union(*(client.methods(service) for service in ours))
        check(methods == client.called, "never called", methods - client.called)
        print(f"called {len(methods)} methods of {len(ours)} services")


main()
