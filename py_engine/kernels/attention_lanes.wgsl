// Up to eight queries that share keys, in a subgroup of exactly four lanes. A lane has a fourth of a
// head's columns of them all, so that keys and values are loaded once, and weighs one key of four. For
// adapters on the CPU: they load lane by lane, and take a place in an array lane by lane as well unless
// it is a constant. Hence queries and columns by number.
const LANES = 4u;
const EIGHTS = HEAD8 / LANES;
const MASKED = -3.4e38;
const KEY = 0u;
const VALUE = 1u;

const FOURS = 2u * EIGHTS;
// Columns by number that every head has, for indices that are constants.
const B = min(1u, FOURS - 1u);
const C = min(2u, FOURS - 1u);
const D = min(3u, FOURS - 1u);
const E = min(4u, FOURS - 1u);
const F = min(5u, FOURS - 1u);
const G = min(6u, FOURS - 1u);
const H = min(7u, FOURS - 1u);

// A lane's columns of a head: two fours of each of its eights.
alias Piece = array<vec4f, FOURS>;

// A number for each of eight queries.
struct Numbers { low: vec4f, high: vec4f }

// The keys that each query sees: from its first one up to its end.
struct Sight { first_low: vec4u, first_high: vec4u, end_low: vec4u, end_high: vec4u }

var<private> queries: array<Piece, 8>;
var<private> sums: array<Piece, 8>;
var<private> highest: Numbers;
var<private> denominators: Numbers;

fn number_of(numbers: Numbers, t: u32) -> f32 { return select(numbers.high[t & 3u], numbers.low[t & 3u], t < 4u); }

// Compilers leave out what heads of this size do not have.
fn dot_of(x: Piece, y: Piece) -> f32 {
  var sum = dot(x[0], y[0]) + dot(x[B], y[B]);
  if (EIGHTS > 1u) { sum += dot(x[C], y[C]) + dot(x[D], y[D]); }
  if (EIGHTS > 2u) { sum += dot(x[E], y[E]) + dot(x[F], y[F]); }
  if (EIGHTS > 3u) { sum += dot(x[G], y[G]) + dot(x[H], y[H]); }
  return sum;
}

fn scale_sum(x: ptr<private, Piece>, by: f32) {
  (*x)[0] *= by;
  (*x)[B] *= by;
  if (EIGHTS > 1u) { (*x)[C] *= by; (*x)[D] *= by; }
  if (EIGHTS > 2u) { (*x)[E] *= by; (*x)[F] *= by; }
  if (EIGHTS > 3u) { (*x)[G] *= by; (*x)[H] *= by; }
}

fn add_to_sum(x: ptr<private, Piece>, y: Piece, times: f32) {
  (*x)[0] += y[0] * times;
  (*x)[B] += y[B] * times;
  if (EIGHTS > 1u) { (*x)[C] += y[C] * times; (*x)[D] += y[D] * times; }
  if (EIGHTS > 2u) { (*x)[E] += y[E] * times; (*x)[F] += y[F] * times; }
  if (EIGHTS > 3u) { (*x)[G] += y[G] * times; (*x)[H] += y[H] * times; }
}

fn cached(kind: u32, i: u32) -> vec4f {
  if (kind == KEY) { return k_at(i); }
  return v_at(i);
}

fn piece_of(kind: u32, row: u32, lane: u32) -> Piece {
  let i = lane * EIGHTS;
  var x: Piece;
  x[0] = cached(kind, row + low_of(i));
  x[B] = cached(kind, row + high_of(i));
  if (EIGHTS > 1u) { x[C] = cached(kind, row + low_of(i + 1u)); x[D] = cached(kind, row + high_of(i + 1u)); }
  if (EIGHTS > 2u) { x[E] = cached(kind, row + low_of(i + 2u)); x[F] = cached(kind, row + high_of(i + 2u)); }
  if (EIGHTS > 3u) { x[G] = cached(kind, row + low_of(i + 3u)); x[H] = cached(kind, row + high_of(i + 3u)); }
  return x;
}

fn query_piece(head: Head, place: u32, scale: f32, lane: u32) -> Piece {
  let statistics = head_statistics(head);
  var x: Piece;
  for (var e = 0u; e < EIGHTS; e++) {
    let eight = turned(head, lane * EIGHTS + e, place, statistics);
    x[2u * e] = eight.low * scale;
    x[2u * e + 1u] = eight.high * scale;
  }
  return x;
}

fn begin_attending() {
  sums = array<Piece, 8>();
  highest = Numbers(vec4f(MASKED), vec4f(MASKED));
  denominators = Numbers();
}

fn scores_of(products: vec4f, seen: vec4<bool>) -> vec4f {
  let scores = vec4f(score_of(products.x), score_of(products.y), score_of(products.z), score_of(products.w));
  return select(vec4f(MASKED), scores, seen);
}

// Online softmax over the keys from `begin` to `end`.
fn attend(begin: u32, end: u32, sight: Sight, lane: u32) {
  for (var base = begin; base < end; base += LANES) {
    let n_keys = min(LANES, end - base);
    var products = Numbers();
    for (var j = 0u; j < n_keys; j++) {
      let row = row_of(base + j);
      let k = piece_of(KEY, row, lane);
      let low = subgroupAdd(vec4f(dot_of(queries[0], k), dot_of(queries[1], k),
                                  dot_of(queries[2], k), dot_of(queries[3], k)));
      products.low = select(products.low, low * k_scale(row), lane == j);
      if (QUERIES > 4u) {
        let high = subgroupAdd(vec4f(dot_of(queries[4], k), dot_of(queries[5], k),
                                     dot_of(queries[6], k), dot_of(queries[7], k)));
        products.high = select(products.high, high * k_scale(row), lane == j);
      }
    }
    let key = vec4u(base + lane);
    let low = scores_of(products.low, (key >= sight.first_low) & (key < sight.end_low));
    let high = scores_of(products.high, (key >= sight.first_high) & (key < sight.end_high));
    let higher = Numbers(max(highest.low, subgroupMax(low)), max(highest.high, subgroupMax(high)));
    let correction = Numbers(exp(highest.low - higher.low), exp(highest.high - higher.high));
    if (any(higher.low > highest.low) || any(higher.high > highest.high)) {
      scale_sum(&sums[0], correction.low.x);
      scale_sum(&sums[1], correction.low.y);
      scale_sum(&sums[2], correction.low.z);
      scale_sum(&sums[3], correction.low.w);
      if (QUERIES > 4u) {
        scale_sum(&sums[4], correction.high.x);
        scale_sum(&sums[5], correction.high.y);
        scale_sum(&sums[6], correction.high.z);
        scale_sum(&sums[7], correction.high.w);
      }
    }
    highest = higher;
    let weights = Numbers(exp(low - higher.low), exp(high - higher.high));
    denominators.low = denominators.low * correction.low + subgroupAdd(weights.low);
    denominators.high = denominators.high * correction.high + subgroupAdd(weights.high);
    for (var j = 0u; j < n_keys; j++) {
      let row = row_of(base + j);
      let v = piece_of(VALUE, row, lane);
      let shares = v_scale(row) * subgroupShuffle(weights.low, j);
      add_to_sum(&sums[0], v, shares.x);
      add_to_sum(&sums[1], v, shares.y);
      add_to_sum(&sums[2], v, shares.z);
      add_to_sum(&sums[3], v, shares.w);
      if (QUERIES > 4u) {
        let others = v_scale(row) * subgroupShuffle(weights.high, j);
        add_to_sum(&sums[4], v, others.x);
        add_to_sum(&sums[5], v, others.y);
        add_to_sum(&sums[6], v, others.z);
        add_to_sum(&sums[7], v, others.w);
      }
    }
  }
}

// Writes what query number t attended to.
fn finish_query(t: u32, token: u32, head: u32, lane: u32) {
  let scale = 1.0 / number_of(denominators, t);
  for (var e = 0u; e < FOURS; e++) {
    let eight = lane * EIGHTS + e / 2u;
    let i = select(high_of(eight), low_of(eight), e % 2u == 0u);
    output[output_at(token, head) + i] = output_of(sums[t][e] * scale, token, head, i);
  }
}
