"""What tests/bench/bench_load.py measured, for a person: a page of text and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PLOT = Path(__file__).parents[2] / "artifacts" / "bench" / "load.png"
_PERCENTILES = ("p50", "p90", "p99", "p99.9")
_PANELS = (("default",), ("fast",), ("cached", "bare"))
Figures = dict[str, Any]


def report(figures: Figures) -> str:
    """The headline, then every run."""
    cached = figures["cached"]
    lines = [_headline(name, figures[name]) for name in ("default", "fast")]
    lines += [
        f"cached answers: {cached['saturated']:.0f}/s; a bare FastAPI POST with as many bytes {cached['bare']:.0f}/s; "
        f"ratio {cached['ratio_to_bare']:.2f}",
        "",
        "Open loop, latency from the intended time of sending. In time: p99 at most 50 ms, at least 99 % answered 200 "
        "in their tier.",
        f"{figures['cores']} cores, shared with the generator; runs of {figures['seconds']:g} s (cached: half); "
        f"load average before: {figures['load_average_before']:.2f}",
        "",
        f"{'':8} {'arrivals':8} {'offered':>8} {'answered':>8} {'200 %':>6} {'degr. %':>7}"
        + "".join(f"{name:>9}" for name in _PERCENTILES)
        + f"{'max ms':>9}  in time   generator: sent late p99 ms, µs a request, % of cores",
        *(_line(run) for run in figures["runs"]),
    ]
    return "\n".join(lines)


def _headline(name: str, value: Figures) -> str:
    turns = ", ".join(f"{ratio:.2f}" for ratio in value["ratio_turns"])
    busy = ", ".join(f"{share:.0%}" for share in value["kernels_cpu_share"])
    return (
        f"{name}: {value['saturated']:.0f}/s saturated; its kernels alone {value['kernels']:.0f}/s "
        f"(threads busy {busy}); ratio {value['ratio_to_kernels']:.2f} (turns {turns})"
    )


def _line(run: Figures) -> str:
    latency, own = run["latency_ms"], run["generator"]
    late = "  LATE: latencies are in part the generator's own" if own["late"] else ""
    waited = f"  {own['waited']:.1%} waited for a connection" if own["waited"] else ""
    return (
        f"{run['target']:8} {run['arrivals']:8} {run['offered']:8.0f} {run['answered']:8.0f} "
        f"{run['shares']['answered'] * 100:6.1f} {run['shares']['degraded'] * 100:7.1f}"
        + "".join(f"{latency[name]:9.2f}" for name in (*_PERCENTILES, "max"))
        + f"  {'yes' if run['passed'] else 'no':7}   {own['lag_p99_ms']:.2f}, {own['cpu_us']:.0f}, "
        + f"{own['cpu_share'] * 100:.0f}{late}{waited}"
    )


def plot(figures: Figures, path: Path) -> None:
    """Latency percentiles over the offered rate, a panel a kind of search."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, panels = pyplot.subplots(1, len(_PANELS), figsize=(15, 4.4), sharey=True, constrained_layout=True)
    for axes, names in zip(panels, _PANELS, strict=True):
        for name, style in zip(names, ("-", ":"), strict=False):
            _curves(axes, figures["runs"], name, style, name if len(names) > 1 else "")
        axes.axhline(50.0, color="#999999", linewidth=0.8)
        _marks(axes, names[0], figures[names[0]])
        axes.set_xlabel("requests/s offered, constant arrivals (x: Poisson, p50 and p99)")
        axes.legend(fontsize=8)
        axes.grid(visible=True, which="major", alpha=0.3)
    panels[0].set_yscale("log")
    panels[0].set_ylabel("ms from the intended time of sending")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=130)
    pyplot.close(drawn)


def _curves(axes: Any, runs: list[Figures], name: str, style: str, label: str) -> None:
    mine = sorted((run for run in runs if run["target"] == name), key=lambda run: run["offered"])
    even = [run for run in mine if run["arrivals"] == "constant"]
    for place, percentile in enumerate(_PERCENTILES):
        rates, values = [run["offered"] for run in even], [run["latency_ms"][percentile] for run in even]
        axes.plot(rates, values, style, marker=".", color=f"C{place}", label=f"{label} {percentile}".strip())
    for run in (run for run in mine if run["arrivals"] == "poisson"):
        for percentile in ("p50", "p99"):
            shade = f"C{_PERCENTILES.index(percentile)}"
            axes.plot(run["offered"], run["latency_ms"][percentile], "x", color=shade)


def _marks(axes: Any, name: str, value: Figures) -> None:
    beside, ratio = ("bare", "ratio_to_bare") if name == "cached" else ("kernels", "ratio_to_kernels")
    axes.axvline(value["saturated"], color="black", linewidth=0.8)
    axes.axvline(value[beside], color="black", linewidth=0.8, linestyle="--")
    axes.set_title(f"{name}: {value['saturated']:.0f}/s (line) / {beside} {value[beside]:.0f}/s = {value[ratio]:.2f}")
