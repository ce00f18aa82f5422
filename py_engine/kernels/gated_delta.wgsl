// A workgroup for a value head, token after token. A thread keeps four columns of every SLICES-th
// row of the head's memory to itself: it is read once and written once for a chunk.
const CHANNELS = 2u * KEY_DIM + VALUE_DIM;
const KEYS_SIZE = N_KEY_HEADS * KEY_DIM;
const VALUES_SIZE = N_VALUE_HEADS * VALUE_DIM;
const Z_AT = 2u * KEYS_SIZE + VALUES_SIZE;
const B_AT = Z_AT + VALUES_SIZE;
const A_AT = B_AT + N_VALUE_HEADS;
const ROW = A_AT + N_VALUE_HEADS;
const CHANNELS_PER_THREAD = (CHANNELS + WORKGROUP - 1u) / WORKGROUP;
const TAPS = CONV_SIZE - 1u;  // of earlier tokens
const COLUMNS = VALUE_DIM / 4u;
const SLICES = WORKGROUP / COLUMNS;
const ROWS_PER_THREAD = (KEY_DIM + SLICES - 1u) / SLICES;
const LENGTH_EPSILON = 1e-6;

var<workgroup> mixed: array<f32, CHANNELS>;  // the token's query, key and value
var<workgroup> recalled: array<vec4f, SLICES * COLUMNS>;  // sums of key times memory
var<workgroup> answered: array<vec4f, SLICES * COLUMNS>;  // sums of query times memory
var<workgroup> lengths: array<vec3f, SLICES>;  // sums of query times query, key times key, query times key
var<workgroup> squares: array<f32, COLUMNS>;

// The place of a head's channel among those of all heads.
fn channel_of(head: u32, i: u32) -> u32 {
  if (i >= 2u * KEY_DIM) { return 2u * KEYS_SIZE + head * VALUE_DIM + i - 2u * KEY_DIM; }
  return (i / KEY_DIM) * KEYS_SIZE + head / (N_VALUE_HEADS / N_KEY_HEADS) * KEY_DIM + i % KEY_DIM;
}

fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }
fn softplus(x: f32) -> f32 { return max(x, 0.0) + log(1.0 + exp(-abs(x))); }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = group.x;
  let column = thread % COLUMNS;
  let slice = thread / COLUMNS;
  let is_there = slice < SLICES;
  let begins = state[STATE_POSITION] == 0u;
  var past: array<f32, CHANNELS_PER_THREAD * TAPS>;
  for (var c = 0u; c < CHANNELS_PER_THREAD; c++) {
    let i = thread + c * WORKGROUP;
    for (var j = 0u; j < TAPS; j++) {
      if (i < CHANNELS && !begins) { past[c * TAPS + j] = history[(head * CHANNELS + i) * TAPS + j]; }
    }
  }
  var rows: array<vec4f, ROWS_PER_THREAD>;
  for (var j = 0u; j < ROWS_PER_THREAD; j++) {
    let r = slice + j * SLICES;
    if (is_there && r < KEY_DIM && !begins) { rows[j] = memory[(head * KEY_DIM + r) * COLUMNS + column]; }
  }
  for (var token = 0u; token < state[STATE_N_TOKENS]; token++) {
    let at = token * ROW;
    for (var c = 0u; c < CHANNELS_PER_THREAD; c++) {
      let i = thread + c * WORKGROUP;
      if (i < CHANNELS) {
        let channel = channel_of(head, i);
        let x = projected[at + channel];
        var sum = conv[channel * CONV_SIZE + TAPS] * x;
        for (var j = 0u; j < TAPS; j++) {
          sum += conv[channel * CONV_SIZE + j] * past[c * TAPS + j];
          past[c * TAPS + j] = select(x, past[c * TAPS + min(j + 1u, TAPS - 1u)], j + 1u < TAPS);
        }
        mixed[i] = sum * sigmoid(sum);
      }
    }
    workgroupBarrier();
    var by_key = vec4f();
    var by_query = vec4f();
    var length = vec3f();
    for (var j = 0u; j < ROWS_PER_THREAD; j++) {
      let r = slice + j * SLICES;
      if (r < KEY_DIM) {
        let q = mixed[r];
        let k = mixed[KEY_DIM + r];
        by_key += k * rows[j];
        by_query += q * rows[j];
        length += vec3f(q * q, k * k, q * k);
      }
    }
    if (is_there) {
      recalled[thread] = by_key;
      answered[thread] = by_query;
      if (column == 0u) { lengths[slice] = length; }
    }
    workgroupBarrier();
    by_key = vec4f();
    by_query = vec4f();
    length = vec3f();
    for (var s = 0u; s < SLICES; s++) {
      by_key += recalled[s * COLUMNS + column];
      by_query += answered[s * COLUMNS + column];
      length += lengths[s];
    }
    let per_query = KEY_SCALE * inverseSqrt(length.x + LENGTH_EPSILON);
    let per_key = inverseSqrt(length.y + LENGTH_EPSILON);
    let decay = exp(-exp(gates[head]) * softplus(projected[at + A_AT + head] + gates[N_VALUE_HEADS + head]));
    let v = 2u * KEY_DIM + 4u * column;
    let value = vec4f(mixed[v], mixed[v + 1u], mixed[v + 2u], mixed[v + 3u]);
    let change = sigmoid(projected[at + B_AT + head]) * (value - decay * per_key * by_key);
    for (var j = 0u; j < ROWS_PER_THREAD; j++) {
      let k = mixed[KEY_DIM + min(slice + j * SLICES, KEY_DIM - 1u)];
      rows[j] = decay * rows[j] + per_key * k * change;
    }
    let found = decay * per_query * by_query + per_query * per_key * length.z * change;
    if (slice == 0u) { squares[column] = dot(found, found); }
    workgroupBarrier();
    if (slice == 0u) {
      var square = 0.0;
      for (var c = 0u; c < COLUMNS; c++) { square += squares[c]; }
      let z = at + Z_AT + head * VALUE_DIM + 4u * column;
      let gate = vec4f(projected[z], projected[z + 1u], projected[z + 2u], projected[z + 3u]);
      let normed = found * inverseSqrt(square / f32(VALUE_DIM) + EPSILON) * norm[column];
      output[(token * N_VALUE_HEADS + head) * COLUMNS + column] = normed * gate / (1.0 + exp(-gate));
    }
  }
  for (var c = 0u; c < CHANNELS_PER_THREAD; c++) {
    let i = thread + c * WORKGROUP;
    for (var j = 0u; j < TAPS; j++) {
      if (i < CHANNELS) { history[(head * CHANNELS + i) * TAPS + j] = past[c * TAPS + j]; }
    }
  }
  for (var j = 0u; j < ROWS_PER_THREAD; j++) {
    let r = slice + j * SLICES;
    if (is_there && r < KEY_DIM) { memory[(head * KEY_DIM + r) * COLUMNS + column] = rows[j]; }
  }
}
