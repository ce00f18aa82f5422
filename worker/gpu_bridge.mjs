// The hot half of py_engine/gpu/webgpu.py: replays a recorded program in one call from Python,
// because 200 dispatches cost Python 365 us and this loop 25 us.

export const counters = { dispatches: 0, passes: 0, submits: 0, readbacks: 0, bytesRead: 0 };

/**
 * A program of one part: parallel arrays of kernels and bind groups, and three grid sizes per
 * dispatch. A kernel has a `pipeline` by the time the program is submitted.
 */
export function createProgram(device, label, kernels, bindGroups, grid) {
  return { device, label, parts: [{ kernels, bindGroups, grid }] };
}

/** A program of other programs' parts, one after the other; it shares them. */
export function chainPrograms(device, label, programs) {
  return { device, label, parts: programs.flatMap(({ parts }) => parts) };
}

function encode({ device, label, parts }) {
  const encoder = device.createCommandEncoder({ label });
  const pass = encoder.beginComputePass({ label });
  let current = null;
  for (const { kernels, bindGroups, grid } of parts) {
    for (let i = 0, g = 0; i < kernels.length; i++, g += 3) {
      if (kernels[i] !== current) pass.setPipeline((current = kernels[i]).pipeline);
      pass.setBindGroup(0, bindGroups[i]);
      pass.dispatchWorkgroups(grid[g], grid[g + 1], grid[g + 2]);
    }
    counters.dispatches += kernels.length;
  }
  pass.end();
  counters.passes++;
  return encoder;
}

function finish(device, encoder) {
  device.queue.submit([encoder.finish()]);
  counters.submits++;
}

export function submit(program) {
  finish(program.device, encode(program));
}

/** Staging buffers that come back when their bytes were read, so several reads can be in flight. */
export class ReadbackRing {
  constructor(device) {
    this.device = device;
    this.free = new Map();  // lists of staging buffers by their size
    this.made = 0;
  }

  /** Replay a program; resolves to the u32 at byte `offset` of `source` after it. */
  submitAndRead(program, source, offset) {
    return this.read(program, source, offset, 4, (bytes) => new Uint32Array(bytes)[0]);
  }

  /** The same for `size` bytes, a multiple of 4, as a Uint8Array. */
  submitAndReadBytes(program, source, offset, size) {
    return this.read(program, source, offset, size, (bytes) => new Uint8Array(bytes.slice(0)));
  }

  async read(program, source, offset, size, take) {
    const staging = this.free.get(size)?.pop() ?? this.device.createBuffer({
      label: `readback ${this.made++}`, size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
    });
    const encoder = encode(program);
    encoder.copyBufferToBuffer(source, offset, staging, 0, size);
    finish(this.device, encoder);
    counters.readbacks++;
    counters.bytesRead += size;
    await staging.mapAsync(GPUMapMode.READ);
    const value = take(staging.getMappedRange());
    staging.unmap();
    if (!this.free.has(size)) this.free.set(size, []);
    this.free.get(size).push(staging);
    return value;
  }
}
