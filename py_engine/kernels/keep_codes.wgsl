// What a token leaves in the cache: a workgroup collects the key and the value of one head, and
// then codes them by the largest of each.
const LEAST_SCALE = 1e-30; // below it all codes are 0
var<workgroup> kept: array<vec4f, 2u * HEAD4>;

fn keep_k(row: u32, i: u32, x: vec4f) { kept[i] = x; }
fn keep_v(row: u32, i: u32, x: vec4f) { kept[HEAD4 + i] = x; }

fn keep_head(row: u32, thread: u32) {
  workgroupBarrier();
  for (var at = thread; at < 2u * HEAD4; at += WORKGROUP) {
    let is_key = at < HEAD4;
    let first = select(HEAD4, 0u, is_key);
    var largest = vec4f(0.0);
    for (var i = 0u; i < HEAD4; i++) { largest = max(largest, abs(kept[first + i])); }
    let scale = max(max(largest.x, largest.y), max(largest.z, largest.w));
    let code = pack4x8snorm(kept[at] * select(0.0, 1.0 / scale, scale > LEAST_SCALE));
    let place = row + at - first;
    if (is_key) {
      k_cache[place] = code;
      k_cache[row + HEAD4] = bitcast<u32>(scale);
    } else {
      v_cache[place] = code;
      v_cache[row + HEAD4] = bitcast<u32>(scale);
    }
  }
}
