"""Whether this browser can compute with WebGPU, and what its user can do if not."""

import js

NO_WEBGPU = (
    "Chrome or Edge: version 113 or newer on Windows, macOS and ChromeOS, 121 on Android. On Linux "
    "turn on “Unsafe WebGPU Support” at chrome://flags/#enable-unsafe-webgpu.",
    "Safari: version 26 or newer.",
    "Firefox: version 141 or newer on Windows, 145 on Macs with Apple silicon; elsewhere set "
    "dom.webgpu.enabled to true at about:config.",
)
NO_ADAPTER = (
    "Turn on hardware acceleration in the browser's settings (“Use graphics acceleration when "
    "available”) and start the browser again.",
    "Update the graphics driver; chrome://gpu tells whether the browser blocks the present one.",
    "On Linux turn on Vulkan at chrome://flags/#enable-vulkan.",
)
INSECURE = (
    "Open it at https:// or, on this machine, at http://localhost/: browsers give WebGPU only to "
    "pages whose connection is secure.",
)


async def gpu_problem():
    """Return (title, remedies) when there is no WebGPU here, else None."""
    if not js.isSecureContext:
        return "This page was opened without a secure connection.", INSECURE
    gpu = getattr(js.navigator, "gpu", None)
    if not hasattr(gpu, "requestAdapter"):
        return "This browser has no WebGPU, which the model needs to compute.", NO_WEBGPU
    if not hasattr(await gpu.requestAdapter(), "limits"):
        return "This browser has WebGPU, but offers no graphics adapter.", NO_ADAPTER
    return None
