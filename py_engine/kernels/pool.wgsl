// One workgroup a sequence, sequences[i] = (first token, end); an empty one has no vector.
const COLUMNS4 = COLUMNS / 4u;
const SHORTEST = 1e-12;
var<workgroup> partial: array<f32, WORKGROUP>;

fn pooled(sequence: vec2u, i: u32) -> vec4f {
  if (!MEAN) { return x[sequence.x * COLUMNS4 + i]; }
  var sum = vec4f(0.0);
  for (var token = sequence.x; token < sequence.y; token++) { sum += x[token * COLUMNS4 + i]; }
  return sum / f32(sequence.y - sequence.x);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let sequence = sequences[group.x];
  if (sequence.x == sequence.y) { return; }
  let row = group.x * COLUMNS4;
  var squares = 0.0;
  for (var i = thread; i < COLUMNS4; i += WORKGROUP) {
    let value = pooled(sequence, i);
    output[row + i] = value;
    squares += dot(value, value);
  }
  if (NORMALIZE) {
    partial[thread] = squares;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < WORKGROUP; i++) { sum += partial[i]; }
    let length = max(sqrt(sum), SHORTEST);
    for (var i = thread; i < COLUMNS4; i += WORKGROUP) { output[row + i] /= length; }
  }
}
