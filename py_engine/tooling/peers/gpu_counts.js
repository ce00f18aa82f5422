// Counts what a page and its workers ask of WebGPU, whatever engine they run. A page runs it before
// anything else; workers that the page starts run it, too.
(() => {
    const script = new URL('/peer-pages/gpu_counts.js', self.location.href.replace(/^blob:/, '')).href;
    const counts = {
        dispatches: 0, passes: 0, submits: 0, readbacks: 0, bytesRead: 0, writes: 0, bytesWritten: 0,
        bindGroups: 0, pipelines: 0, buffers: 0, bufferBytes: 0,
    };
    let oneWorkgroup = false;

    function before(type, name, note) {
        const prototype = self[type]?.prototype;
        const original = prototype?.[name];
        if (!original) return;
        prototype[name] = function (...parameters) {
            return original.apply(this, note.call(this, ...parameters) ?? parameters);
        };
    }
    const count = (name) => () => { counts[name] += 1; };

    before('GPUCommandEncoder', 'beginComputePass', count('passes'));
    before('GPUQueue', 'submit', count('submits'));
    before('GPUDevice', 'createBindGroup', count('bindGroups'));
    before('GPUDevice', 'createComputePipeline', count('pipelines'));
    before('GPUDevice', 'createComputePipelineAsync', count('pipelines'));
    before('GPUComputePassEncoder', 'dispatchWorkgroupsIndirect', count('dispatches'));
    before('GPUComputePassEncoder', 'dispatchWorkgroups', () => {
        counts.dispatches += 1;
        return oneWorkgroup ? [1, 1, 1] : undefined;
    });
    before('GPUBuffer', 'mapAsync', function (mode, offset = 0, size = this.size - offset) {
        if (mode !== GPUMapMode.READ) return;
        counts.readbacks += 1;
        counts.bytesRead += size;
    });
    before('GPUQueue', 'writeBuffer', (buffer, at, data, first = 0, size = undefined) => {
        const unit = data.BYTES_PER_ELEMENT ?? 1;
        counts.writes += 1;
        counts.bytesWritten += size === undefined ? data.byteLength - first * unit : size * unit;
    });
    before('GPUDevice', 'createBuffer', ({ size, mappedAtCreation }) => {
        counts.buffers += 1;
        counts.bufferBytes += size;
        if (mappedAtCreation) counts.bytesWritten += size;
    });
    const destroyed = new WeakSet();
    before('GPUBuffer', 'destroy', function () {
        if (!destroyed.has(this)) counts.bufferBytes -= this.size;
        destroyed.add(this);
    });

    const channel = new BroadcastChannel('gpu counts');
    channel.addEventListener('message', ({ data }) => {
        if (data.ask === undefined) return;
        oneWorkgroup = data.oneWorkgroup ?? oneWorkgroup;
        channel.postMessage({ answer: data.ask, counts });
    });

    let workers = 0;
    const add = (sums, other) =>
        Object.fromEntries(Object.entries(sums).map(([name, value]) => [name, value + other[name]]));

    // Asks all workers, and sets whether each dispatch has but one workgroup from now on.
    function everywhere(setting) {
        oneWorkgroup = setting ?? oneWorkgroup;
        const ask = Math.random();
        return new Promise((resolve) => {
            let sums = { ...counts };
            let waiting = workers;
            function listen({ data }) {
                if (data.answer !== ask) return;
                sums = add(sums, data.counts);
                waiting -= 1;
                if (waiting === 0) finish();
            }
            function finish() {
                channel.removeEventListener('message', listen);
                resolve(sums);
            }
            if (waiting === 0) { finish(); return; }
            channel.addEventListener('message', listen);
            channel.postMessage({ ask, oneWorkgroup });
        });
    }

    self.gpuCounts = {
        here: () => ({ ...counts }),
        everywhere,
        setOneWorkgroup: (setting) => { oneWorkgroup = setting; },
    };

    if (!self.Window) return;
    const OriginalWorker = self.Worker;
    self.Worker = class extends OriginalWorker {
        constructor(url, options) {
            const address = JSON.stringify(new URL(url, self.location.href).href);
            const [own, given] = [JSON.stringify(script), address];
            const code = options?.type === 'module'
                ? `import ${own}; import ${given};`
                : `importScripts(${own}, ${given});`;
            super(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })), options);
            workers += 1;
        }

        terminate() {
            workers -= 1;
            super.terminate();
        }
    };
})();
