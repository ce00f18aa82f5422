// A workgroup has whole heads, which its threads add up together: queries change in place.
const GROUP_HEADS = WORKGROUP / HEAD8;

var<workgroup> squares: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = group.x * GROUP_HEADS + thread / HEAD8;
  let i = thread % HEAD8;
  let is_there = thread < GROUP_HEADS * HEAD8 && head < QKV_HEADS;
  let at = first_of(group.y, head) + i;
  var low = vec4f();
  var high = vec4f();
  if (is_there) {
    low = qkv[at];
    high = qkv[at + HEAD8];
  }
  squares[thread] = dot(low, low) + dot(high, high);
  workgroupBarrier();
  if (!is_there) { return; }
  if (head < N_HEADS + N_KV_HEADS) {
    var sum = 0.0;
    for (var j = thread - i; j < thread - i + HEAD8; j++) { sum += squares[j]; }
    let inverse_rms = inverseSqrt(sum / f32(HEAD_DIM) + EPSILON);
    let is_query = head < N_HEADS;
    low *= inverse_rms * select(k_norm[i], q_norm[i], is_query);
    high *= inverse_rms * select(k_norm[HEAD8 + i], q_norm[HEAD8 + i], is_query);
  }
  append(group.y, head, i, low, high);
}
