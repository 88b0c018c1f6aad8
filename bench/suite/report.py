"""From measured rows to JSON's sums and the markdown tables of RESULTS.md."""

import statistics

from . import workloads

# A run is called disturbed when other processes kept more of the cores than this busy.
DISTURBED_CORES = 0.1


def row(model, dtype, workload, system, runs):
    """A table cell from its runs: those that were not disturbed, or all where none was."""
    quiet = [run for run in runs if run["others"] <= DISTURBED_CORES]
    used = quiet or runs
    rates = [run["rate"] for run in used]
    found = {
        "model": model,
        "dtype": dtype,
        "workload": workload.name,
        "unit": workload.unit,
        "system": system,
        "median": statistics.median(rates),
        "min": min(rates),
        "max": max(rates),
        "num_runs": len(used),
        "num_disturbed": len(runs) - len(quiet),
        "is_disturbed": not quiet,
        "runs": runs,
    }
    for name in ("ttft_ms", "itl_ms", "e2e_ms"):
        values = [run[name] for run in used if name in run]
        if values:
            found[name] = {key: round(statistics.median(value[key] for value in values), 2) for key in ("p50", "p99")}
    return found


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(found):
    text = f"{number(found['median'])} ({number(found['min'])}–{number(found['max'])})"
    return text + (" *" if found["is_disturbed"] else "")


def table(header, lines):
    return "\n".join(
        ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        + ["| " + " | ".join(line) + " |" for line in lines]
    )


def markdown(result):
    machine = result["machine"]
    parts = [
        f"## {machine['time'][:10]}, commit {machine['commit']}",
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['cpu_flags'])}), "
        f"{machine['memory_gib']} GiB, kernel {machine['kernel']}; every system with {result['threads']} threads, "
        "greedy, end of text ignored, no prefix cache.",
        systems(result),
        agreement(result),
    ]
    groups = sorted({(row["model"], row["dtype"]) for row in result["rows"]}, key=lambda group: order(result, group))
    for model, dtype in groups:
        rows = [row for row in result["rows"] if (row["model"], row["dtype"]) == (model, dtype)]
        parts.append(f"### {model}, {dtype}\n\n{comparison(rows)}")
    parts += [latencies(result), extras(result), ceilings(result)]
    if any(row["is_disturbed"] for row in result["rows"]):
        parts.append(
            f"\\* every run of this cell was disturbed: other processes kept more than {DISTURBED_CORES} cores busy."
        )
    return "\n\n".join(part for part in parts if part) + "\n"


def order(result, group):
    return [(row["model"], row["dtype"]) for row in result["rows"]].index(group)


def systems(result):
    lines = [
        [f"{name}, {dtype}", facts.get("version", ""), facts.get("settings", "")]
        for (name, dtype), facts in result["systems"].items()
    ]
    lines += [[name, "not available", why] for name, why in result["missing"].items()]
    return table(["system", "version", "settings"], lines)


def agreement(result):
    if not result["agreement"]:
        return ""
    lines = [[name, text] for name, text in result["agreement"].items()]
    return "Greedy tokens of `tiny` in f32, 8 prompts with 16 tokens each, against the first system's:\n\n" + table(
        ["system", "agreement"], lines
    )


def comparison(rows):
    """Workloads down, systems across, and our ratio to each peer."""
    names = list(dict.fromkeys(row["system"] for row in rows))
    peers = [name for name in names if not name.startswith("ours")]
    cells = {(row["workload"], row["system"]): row for row in rows}
    lines = []
    for workload in dict.fromkeys(row["workload"] for row in rows):
        line = [f"{workload} ({workloads.WORKLOADS[workload].unit})"]
        line += [spread(cells[workload, name]) if (workload, name) in cells else "–" for name in names]
        for peer in peers:
            pair = cells.get((workload, "ours")), cells.get((workload, peer))
            line.append(f"**{pair[0]['median'] / pair[1]['median']:.2f}**" if all(pair) else "–")
        lines.append(line)
    return table(["workload"] + names + [f"ours / {peer}" for peer in peers], lines)


def latencies(result):
    def pair(row, name):
        return f"{row[name]['p50']} / {row[name]['p99']}" if name in row else "–"

    lines = []
    for row in result["rows"]:
        if row["system"] == "ours" and "ttft_ms" in row:
            times = [pair(row, name) for name in ("ttft_ms", "itl_ms", "e2e_ms")]
            lines.append([row["model"], row["dtype"], row["workload"], *times])
    if not lines:
        return ""
    return "### Latencies of ours over gRPC, p50 / p99 in ms\n\n" + table(
        ["model", "dtype", "workload", "first token", "between tokens", "whole answer"], lines
    )


def extras(result):
    parts = []
    for extra in result["extras"]:
        parts.append(f"### {extra['title']}\n\n{extra['what']}\n\n" + table(extra["header"], extra["lines"]))
    return "\n\n".join(parts)


def ceilings(result):
    if not result["ceilings"]:
        return ""
    lines = [[each["what"], f"{number(each['value'])} {each['unit']}", each["by"]] for each in result["ceilings"]]
    text = "### What this machine can do at most\n\n" + table(["what", "rate", "by"], lines)
    reached = fractions(result)
    if reached:
        text += "\n\n### What of it is reached\n\n" + table(
            [
                "model",
                "dtype",
                "system",
                "single stream: weights read",
                "of the read bandwidth",
                "W: products",
                "of the best product rate",
            ],
            reached,
        )
    return text


BYTES = {"f32": 4.0, "bf16": 2.0, "int8": 1.0}


def fractions(result):
    """One decoded token reads every weight once (the embedding as output head), and W computes two operations for
    each weight and token; the head is only computed where a token is drawn."""
    read = max((each["value"] for each in result["ceilings"] if "1024 MiB" in each["what"]), default=None)
    product = {
        dtype: max((each["value"] for each in result["ceilings"] if each["what"].startswith(name)), default=None)
        for dtype, name in [("f32", "float32 product"), ("bf16", "bfloat16 product")]
    }
    prompt_tokens = sum(map(len, workloads.WORKLOADS["W"].prompts()))
    cells = {(row["model"], row["dtype"], row["system"], row["workload"]): row["median"] for row in result["rows"]}
    lines = []
    for model, dtype, system in dict.fromkeys(key[:3] for key in cells):
        shape = result["models"].get(model)
        if system == "ours, batch stream" or not shape:
            continue
        line = [model, dtype, system]
        single = cells.get((model, dtype, system, "single"))
        if single and read:
            rate = single * shape["num_parameters"] * BYTES[dtype] / 1e9
            line += [f"{rate:.1f} GB/s", f"{100 * rate / read:.0f} %"]
        else:
            line += ["–", "–"]
        crowd, best = cells.get((model, dtype, system, "W")), product.get(dtype)
        if crowd:
            workload = workloads.WORKLOADS["W"]
            generated = workload.num_prompts * workload.max_tokens
            layers = shape["num_parameters"] - shape["num_embedding"]
            operations = 2.0 * (layers * (prompt_tokens + generated) + shape["num_embedding"] * generated)
            rate = operations * crowd / generated / 1e9
            line += [f"{rate:.0f} GFLOP/s", f"{100 * rate / best:.0f} %" if best else "–"]
        else:
            line += ["–", "–"]
        lines.append(line)
    return lines
