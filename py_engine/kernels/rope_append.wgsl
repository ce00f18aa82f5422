// RoPE of q in place and of k on its way into the cache, with v, for every token of a chunk.
const HEAD4 = HEAD_DIM / 4u;
const HEAD8 = HEAD_DIM / 8u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) group: vec3u) {
  let head = id.x / HEAD8;
  let i = id.x % HEAD8;
  if (head >= N_HEADS + 2u * N_KV_HEADS) { return; }
  let position = state[STATE_POSITION] + group.y;
  let slot = slot_of(position);
  let at = (group.y * (N_HEADS + 2u * N_KV_HEADS) + head) * HEAD4 + i;
  var low = qkv[at];
  var high = qkv[at + HEAD8];
  if (head < N_HEADS + N_KV_HEADS) {
    let r = rotation(position, i);
    let turned = low * r.cosine - high * r.sine;
    high = high * r.cosine + low * r.sine;
    low = turned;
  }
  if (head < N_HEADS) {
    qkv[at] = low;
    qkv[at + HEAD8] = high;
  } else if (head < N_HEADS + N_KV_HEADS) {
    let here = ((head - N_HEADS) * SLOTS + slot) * HEAD4 + i;
    k_cache[here] = pack_halfs(low);
    k_cache[here + HEAD8] = pack_halfs(high);
  } else {
    let here = ((head - N_HEADS - N_KV_HEADS) * SLOTS + slot) * HEAD4 + i;
    v_cache[here] = pack_halfs(low);
    v_cache[here + HEAD8] = pack_halfs(high);
  }
}
