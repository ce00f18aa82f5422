// RoPE of q in place and of k on its way into the cache, with v, for every token of a chunk.
const HEAD4 = HEAD_DIM / 4u;
const HEAD8 = HEAD_DIM / 8u;
const QKV_HEADS = N_HEADS + 2u * N_KV_HEADS;

fn first_of(token: u32, head: u32) -> u32 { return (token * QKV_HEADS + head) * HEAD4; }

// Takes the i-th four of a head's lower half and of its upper half to where they belong.
fn append(token: u32, head: u32, i: u32, low: vec4f, high: vec4f) {
  let position = state[STATE_POSITION] + token;
  let slot = slot_of(position);
  if (head >= N_HEADS + N_KV_HEADS) {
    let here = ((head - N_HEADS - N_KV_HEADS) * SLOTS + slot) * HEAD4 + i;
    v_cache[here] = pack_halfs(low);
    v_cache[here + HEAD8] = pack_halfs(high);
    return;
  }
  let r = rotation(position, i);
  let low_turned = low * r.cosine - high * r.sine;
  let high_turned = high * r.cosine + low * r.sine;
  if (head < N_HEADS) {
    let at = first_of(token, head) + i;
    qkv[at] = low_turned;
    qkv[at + HEAD8] = high_turned;
  } else {
    let here = ((head - N_HEADS) * SLOTS + slot) * HEAD4 + i;
    k_cache[here] = pack_halfs(low_turned);
    k_cache[here + HEAD8] = pack_halfs(high_turned);
  }
}
