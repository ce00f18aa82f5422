// MLC's group quantisation, a group of 32 columns a thread: scale = max|w| / 7 and
// code = round(w / scale) + 7, ties to even. Bit for bit as `group_quantization.py`: a GPU's division
// may be off by some units in the last place, so the scale is divided as an integer, and a code is
// found by comparing |w| with the middles between codes, (n + 1/2) scale, which are exact.
fn seventh(bits: u32) -> u32 {
  let exponent = bits >> 23u;
  let wide = ((bits & 0x7FFFFFu) | 0x800000u) << 8u;
  let quotient = wide / 7u;
  let shift = select(5u, 6u, quotient >= 0x20000000u);
  if (exponent + shift < 9u) { return 0u; }
  let mantissa = shifted_to_even(quotient, shift, wide != quotient * 7u);
  return ((exponent + shift - 9u) << 23u) + mantissa;
}

fn code(bits: u32, scale: f32, inverse: f32) -> u32 {
  let size = bitcast<f32>(bits & 0x7FFFFFFFu);
  // Beside a whole number this may be one too few or too many, but never across a middle.
  var steps = u32(min(size * inverse, 7.0));
  let middle = (f32(steps) + 0.5) * scale;
  if (steps < 7u && (size > middle || (size == middle && (steps & 1u) == 1u))) { steps += 1u; }
  return select(7u + steps, 7u - steps, bits >= 0x80000000u);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) thread: u32) {
  let groups = piece[PIECE_COLUMNS] / 32u;
  let unit = unit_of(id, thread);
  let row = unit / groups;
  if (row >= piece[PIECE_ROWS]) { return; }
  let to = target_row(row);
  if (!is_kept(to)) { return; }
  let group = to * groups + unit % groups;
  let column = (unit % groups) * 32u;
  var largest = 0u;
  for (var i = 0u; i < 32u; i++) { largest = max(largest, element(row, column + i) & 0x7FFFFFFFu); }
  let scale = store_scale(group, seventh(largest), largest);
  let inverse = 1.0 / scale;
  for (var word = 0u; word < 4u; word++) {
    var codes = 0x77777777u;
    if (scale > 0.0) {
      codes = 0u;
      for (var i = 0u; i < 8u; i++) {
        codes |= code(element(row, column + word * 8u + i), scale, inverse) << (i * 4u);
      }
    }
    weights[group * 4u + word] = codes;
  }
}
