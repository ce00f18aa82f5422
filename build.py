#!/usr/bin/env python3
"""PyWebLLM's one command line: see it work, serve it, build it, test it, measure it.

Needs Python 3.11 or newer and a network to the package registries. What else is needed is
installed into .venv/ and .build/ on the first run; later runs start at once.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - who runs this has any Python
    sys.exit(f"build.py needs Python 3.11 or newer; this is Python {sys.version.split()[0]}")

import argparse
import os
from pathlib import Path

from py_engine.tooling.environment import (
    VENV,
    ensure_chromium,
    ensure_node,
    ensure_peers,
    ensure_venv,
    ensure_webllm,
)
from py_engine.tooling.site import DEFAULT_SITE, build_site
from py_engine.tooling.steps import SetupError, only_one

ALL_TESTS = ["-n", "auto", "--maxprocesses", "4"]
"""Arguments of pytest for the whole suite; one chosen test needs no further processes."""


def demo(options: argparse.Namespace) -> int:
    """Answer from the embedded model, in a window or in the terminal."""
    from py_engine.tooling.demo import run_demo

    ensure_chromium()
    return run_demo(build_site().folder, options.prompt, options.headless)


def serve(options: argparse.Namespace) -> int:
    """Build the site and serve it on this machine."""
    from py_engine.tooling.server import serve_forever

    return serve_forever(build_site(numpy="optional").folder, options.port)


def site(options: argparse.Namespace) -> int:
    """Write the static site to a folder."""
    built = build_site(options.folder, numpy="optional")
    print(f"{'site':<12} build {built.build_id} is in {built.folder}")
    return 0


def test(options: argparse.Namespace) -> int:
    """Run pytest, which runs the linters too."""
    import pytest

    ensure_chromium()
    ensure_webllm(ensure_node())
    ensure_peers(ensure_node())
    build_site(numpy="required")
    return int(pytest.main(options.pytest_arguments or ALL_TESTS))


def bench(options: argparse.Namespace) -> int:
    """Measure the embedded model, its kernels or forms of these, or another model's shapes."""
    from py_engine.tooling import bench as benchmark
    from py_engine.tooling import bench_forms, bench_profile, bench_shapes, bench_startup

    ensure_chromium()
    folder = build_site().folder
    if options.tune:
        return bench_forms.main(folder, as_json=options.json)
    if options.peers:
        peers = ensure_peers(ensure_node())
        from py_engine.tooling import bench_peers

        return bench_peers.main(
            folder, peers, options.peers, options.prompt_tokens, as_json=options.json
        )
    if options.startup:
        return bench_startup.main(folder, as_json=options.json)
    if options.shapes:
        return bench_shapes.main(folder, options.shapes, as_json=options.json)
    if options.profile or options.trace:
        return bench_profile.main(folder, as_json=options.json, trace_file=options.trace)
    return benchmark.main(folder, as_json=options.json)


def convert(options: argparse.Namespace) -> int:
    """Write a model of any kind of files as MLC files."""
    from py_engine.errors import MLCError
    from py_engine.weights.convert import convert_model

    try:
        convert_model(
            options.source,
            options.target,
            options.quantization,
            context_window_size=options.context_window_size,
        )
    except MLCError as error:
        print(f"\nbuild.py: {error}", file=sys.stderr)
        return 1
    nbytes = sum(path.stat().st_size for path in options.target.glob("params_shard_*.bin"))
    print(f"{'convert':<12} {options.target} holds {nbytes / 1e6:.1f} MB of weights")
    return 0


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; everything after `test` belongs to pytest."""
    parser = argparse.ArgumentParser(prog="build.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser(
        "demo",
        help="chat with the embedded model in Chrome, or in the terminal",
        description="Build the site and open the chat page in Chrome with the embedded model. With"
        " --prompt or --headless, or without a display, drive a headless Chrome instead and"
        " stream the answer and its statistics to the terminal.",
    )
    command.add_argument("--prompt", metavar="TEXT", help="ask this and print the answer")
    command.add_argument("--headless", action="store_true", help="open no window")
    command.set_defaults(run=demo)

    command = commands.add_parser("serve", help="build the site and serve it on this machine")
    command.add_argument("--port", type=int, default=8000, help="(default: 8000)")
    command.set_defaults(run=serve)

    command = commands.add_parser(
        "site",
        help="write the static site, for any web server, and for Chrome as an extension",
        description="Write the static site to a folder. Any web server can serve it, and"
        " chrome://extensions loads it with `Load unpacked` (docs/chrome-extension.md).",
    )
    command.add_argument(
        "folder", nargs="?", type=Path, default=DEFAULT_SITE, help="(default: .build/site)"
    )
    command.set_defaults(run=site)

    command = commands.add_parser(
        "test",
        help="run all checks and tests; arguments go to pytest",
        usage="build.py test [pytest arguments]",
        description="Run ruff, mypy and every test. Arguments go to pytest: build.py test -k boot",
    )
    command.set_defaults(run=test)

    command = commands.add_parser("bench", help="measure boot, load, prefill and decode")
    instead = command.add_mutually_exclusive_group()
    instead.add_argument(
        "--tune", action="store_true", help="time every form of the model's products instead"
    )
    instead.add_argument(
        "--profile", action="store_true", help="time every kernel of prefill and decode instead"
    )
    instead.add_argument(
        "--peers",
        metavar="NAME",
        help="measure other engines beside ours instead, with a model of these shapes",
    )
    instead.add_argument(
        "--startup",
        action="store_true",
        help="show what happens when from a new worker to the first token instead",
    )
    instead.add_argument(
        "--shapes",
        metavar="NAME",
        help="measure a model of these shapes with random weights instead, such as"
        " SmolLM2-135M-Instruct or Qwen2.5-0.5B-Instruct",
    )
    command.add_argument(
        "--prompt-tokens",
        type=int,
        default=128,
        metavar="N",
        help="tokens of a prompt of --peers (default: 128)",
    )
    command.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="--profile, and write both to FILE, which ui.perfetto.dev opens",
    )
    command.add_argument("--json", action="store_true", help="print the figures as JSON")
    command.set_defaults(run=bench)

    command = commands.add_parser(
        "convert",
        help="convert a model to MLC files",
        description="Convert a model to the files of MLC, which this engine and others load: shards"
        " of weights, their index, configuration and tokenizer, and model-manifest.json with the"
        " SHA-256 of every file, by which downloads are verified.",
    )
    command.add_argument(
        "source",
        type=Path,
        help="folder of Hugging Face's (config.json, safetensors) or MLC's files, or a GGUF file",
    )
    command.add_argument("target", type=Path, help="folder to write")
    command.add_argument(
        "--quantization",
        default="q4f16_1",
        metavar="FORMAT",
        help="q4f16_0, q4f16_1, q4f16_2, q4f32_1, q3f16_0, q3f16_1, q0f16, q0bf16 or q0f32"
        " (default: q4f16_1)",
    )
    command.add_argument(
        "--context-window-size",
        type=int,
        metavar="TOKENS",
        help="(default: the model's longest)",
    )
    command.set_defaults(run=convert)

    is_test = arguments[:1] == ["test"] and not {"-h", "--help"} & set(arguments)
    options = parser.parse_args(["test"] if is_test else arguments)
    others = ("tune", "peers", "shapes", "startup")
    other = next((name for name in others if getattr(options, name, None)), None)
    if options.command == "bench" and options.trace and other:
        parser.error(f"bench: --trace belongs to --profile, not to --{other}")
    if options.command == "bench" and options.prompt_tokens < 1:
        parser.error(f"bench: --prompt-tokens is {options.prompt_tokens}, but must be at least 1")
    options.pytest_arguments = arguments[1:]
    return options


def enter_environment() -> None:
    """Start this command again in `.venv`, which is made or brought up to date first."""
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    with only_one("environment"):
        python = ensure_venv()
    os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])


def main() -> int:
    """Run the command that was asked for; return the exit status."""
    options = parse_arguments(sys.argv[1:])
    try:
        enter_environment()
        status: int = options.run(options)
    except SetupError as error:
        print(f"\nbuild.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
