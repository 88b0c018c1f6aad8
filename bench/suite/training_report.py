"""The tables of bench/train."""

from . import report


def markdown(result):
    machine = result["machine"]
    parts = [
        f"## Training, {machine['time'][:10]}, commit {machine['commit']}",
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['cpu_flags'])}), "
        f"{machine['memory_gib']} GiB, kernel {machine['kernel']}.",
        systems(result),
    ]
    seen = []
    for row in result["rows"]:
        key = tuple(row[name] for name in ("shape", "workload", "dtype", "threads"))
        if key not in seen:
            seen.append(key)
            parts.append(case(key, result["rows"]))
    if any(row["is_disturbed"] for row in result["rows"]):
        parts.append(
            f"\\* every run was disturbed: other processes kept more than {report.DISTURBED_CORES} cores busy."
        )
    missing = [f"- {name}: {why}" for name, why in result["missing"].items()]
    if missing:
        parts.append("Not available:\n\n" + "\n".join(missing))
    return "\n\n".join(parts) + "\n"


def systems(result):
    lines = [[name, dtype, facts["version"], facts["settings"]] for (name, dtype), facts in result["systems"].items()]
    return report.table(["System", "Type", "Version", "Settings"], lines)


def case(key, rows):
    shape, workload, dtype, threads = key
    rows = [row for row in rows if tuple(row[name] for name in ("shape", "workload", "dtype", "threads")) == key]
    ours = next((row for row in rows if row["system"] == "ours"), None)
    first = rows[0]
    lines = []
    for row in rows:
        spread = f"{row['step_ms']:.1f} ({row['step_ms_min']:.1f}–{row['step_ms_max']:.1f})"
        lines.append(
            [
                row["system"],
                spread + (" *" if row["is_disturbed"] else ""),
                f"{row['step_ms'] / ours['step_ms']:.2f}" if ours else "",
                report.number(row["tokens_per_s"]),
                report.number(row["label_tokens_per_s"]),
                report.number(row["peak_mib"]),
                f"{row['losses'][-1]:.6f}",
                differences(row, ours),
            ]
        )
    header = ["System", "ms/step", "time / ours", "tokens/s", "labels/s", "peak MiB", "last loss"]
    title = (
        f"### {shape}, {workload}, {dtype}, {threads} threads\n\n"
        f"{first['batch_size']} examples a step, {first['num_steps']} steps."
    )
    return title + "\n\n" + report.table([*header, "loss − ours, first and last"], lines)


def differences(row, ours):
    if not ours or row is ours:
        return ""
    pairs = [(row["losses"][at] - ours["losses"][at]) for at in (0, -1)]
    return f"{pairs[0]:+.1e}, {pairs[1]:+.1e}"
