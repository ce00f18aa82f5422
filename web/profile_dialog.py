"""The dialog that tells where the time of prefill and decode goes, kernel by kernel.

Runs on MicroPython and on Pyodide.
"""

import json

import js
from chat_view import add, element

from py_engine.errors import AbortError, DeviceLostError, MLCError, WorkerError
from py_engine.profile_trace import phases_of, trace_of


def open_profile_dialog():
    """Show the dialog, with the button that measures at hand."""
    element("profile-dialog").showModal()
    element("measure").focus()


async def show_profile(engine):
    """Measure the kernels of the loaded model and list them, or end that if it is going on.

    What fails is told in the dialog; what ends the engine is raised as well.
    """
    if element("profile-dialog").getAttribute("aria-busy") == "true":
        engine.interrupt_generate()
        return
    show_busy(True)
    try:
        show_kernels(await engine.profile_kernels())
    except AbortError:
        element("profile-note").textContent = "Stopped."
    except MLCError as error:
        element("profile-note").textContent = str(error)
        if isinstance(error, (DeviceLostError, WorkerError)):
            raise
    finally:
        show_busy(False)


def show_busy(is_busy):
    """Show whether kernels are being measured; the button stays where the focus is."""
    element("profile-dialog").setAttribute("aria-busy", "true" if is_busy else "false")
    element("measure").textContent = "Stop" if is_busy else "Measure"
    element("measuring").hidden = not is_busy
    if is_busy:
        element("profile-note").textContent = "Measuring…"


def show_kernels(profile):
    """List a profile's kernels, and offer its trace."""
    bodies = element("kernels").tBodies
    for number, (title, phase) in enumerate(phases_of(profile)):
        show_phase(bodies.item(number), title, phase)
    element("kernels-table").hidden = False
    element("profile-note").textContent = summary(profile)
    link = element("save-trace")
    link.href = "data:application/json," + js.encodeURIComponent(json.dumps(trace_of(profile)))
    link.hidden = False


def show_phase(rows, title, phase):
    """List the kernels of a phase below its title and the time of one pass."""
    rows.replaceChildren()
    heading = add(add(rows, "tr"), "th", title)
    heading.scope = "rowgroup"
    heading.colSpan = 8
    add(heading, "span", f"{phase.seconds * 1e3:.2f} ms in one pass", "quiet")
    total = sum(kernel.count * kernel.seconds for kernel in phase.kernels)
    for kernel in phase.kernels:
        row = add(rows, "tr")
        name = add(row, "th", kernel.kernel)
        name.scope = "row"
        if kernel.shape:
            add(name, "span", kernel.shape, "quiet")
        for text in figures(kernel, total):
            add(row, "td", text)


def figures(kernel, total):
    """Return what a kernel's row shows: dispatches, µs of one, share of all, and rates."""
    per_second = 1 / kernel.seconds / 1e9 if kernel.seconds else 0.0
    return (
        str(kernel.count),
        f"{kernel.seconds * 1e6:.1f}",
        percent(kernel.count * kernel.seconds / total),
        f"{kernel.nbytes * per_second:.2f}",
        percent(kernel.bandwidth_fraction),
        f"{kernel.operations * per_second:.2f}",
        percent(kernel.arithmetic_fraction),
    )


def percent(fraction):
    """Return a fraction as a percentage."""
    return f"{fraction * 100:.1f} %"


def summary(profile):
    """Return what was measured how, and the adapter's rates that the fractions are of."""
    bandwidth = max(profile.copy_bytes_per_s, profile.read_bytes_per_s)
    clock = "the GPU's timestamps" if profile.has_timestamps else "the clock on the wall"
    return (
        f"{profile.model} on {profile.adapter}, by {clock}. The adapter moves "
        f"{bandwidth / 1e9:.1f} GB/s and computes {profile.operations_per_s / 1e9:.1f} Gop/s."
    )
