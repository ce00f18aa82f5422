// The draws of a batch, each with its row of every buffer. `rows` has the first word of each one's
// `state`, and which `sampling` is its.
struct SamplingSlot { @size(SAMPLING_STRIDE) params: Sampling }

var<private> row: u32;
var<private> state_at: u32;

fn enter_row(group: vec3u) -> Sampling {
  row = group.y;
  state_at = rows[group.y].x;
  return sampling[rows[group.y].z].params;
}
