// The hot half of py_engine/gpu/webgpu.py: replays a recorded program in one call from Python,
// because 200 dispatches cost Python 365 us and this loop 25 us.

export const counters = { dispatches: 0, passes: 0, submits: 0, readbacks: 0, bytesRead: 0 };

/** A program: parallel arrays of pipelines and bind groups, and three grid sizes per dispatch. */
export function createProgram(device, label, pipelines, bindGroups, grid) {
  return { device, label, pipelines, bindGroups, grid };
}

function encode({ device, label, pipelines, bindGroups, grid }) {
  const encoder = device.createCommandEncoder({ label });
  const pass = encoder.beginComputePass({ label });
  let current = null;
  for (let i = 0, g = 0; i < pipelines.length; i++, g += 3) {
    if (pipelines[i] !== current) pass.setPipeline((current = pipelines[i]));
    pass.setBindGroup(0, bindGroups[i]);
    pass.dispatchWorkgroups(grid[g], grid[g + 1], grid[g + 2]);
  }
  pass.end();
  counters.passes++;
  counters.dispatches += pipelines.length;
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
    this.free = [];
    this.made = 0;
  }

  async submitAndRead(program, source, offset) {
    const staging = this.free.pop() ?? this.device.createBuffer({
      label: `readback ${this.made++}`, size: 4, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
    });
    const encoder = encode(program);
    encoder.copyBufferToBuffer(source, offset, staging, 0, 4);
    finish(this.device, encoder);
    counters.readbacks++;
    counters.bytesRead += 4;
    await staging.mapAsync(GPUMapMode.READ);
    const value = new Uint32Array(staging.getMappedRange())[0];
    staging.unmap();
    this.free.push(staging);
    return value;
  }
}
