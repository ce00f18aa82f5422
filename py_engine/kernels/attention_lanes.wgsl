// Up to eight queries that share keys, in a subgroup of exactly four lanes. A lane has a fourth of a
// head's columns of them all, so that keys and values are loaded once, and weighs one key of four. For
// adapters on the CPU: they load lane by lane, and take a place in an array lane by lane as well unless
// it is a constant. Hence queries and columns by number; compilers leave out those that are not there.
// They run what an `if` skips, too, and a loop's body once more than it has rounds, with no lane at work,
// unless it asks at its end: hence `break if` where rounds are few, and sums that are scaled as they grow.
const LANES = 4u;
const EIGHTS = HEAD8 / LANES;
const MASKED = -3.4e38;
const FIRST_PHASE = select(1u, 0u, SINKS > 0u);
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

// Queries by number, likewise.
const Q1 = min(1u, QUERIES - 1u);
const Q2 = min(2u, QUERIES - 1u);
const Q3 = min(3u, QUERIES - 1u);
const Q4 = min(4u, QUERIES - 1u);
const Q5 = min(5u, QUERIES - 1u);
const Q6 = min(6u, QUERIES - 1u);
const Q7 = min(7u, QUERIES - 1u);

// A lane's columns of a head: two fours of each of its eights.
alias Piece = array<vec4f, FOURS>;

// A number for each of eight queries.
struct Numbers { low: vec4f, high: vec4f }

// The keys that each query sees: from its first one up to its end.
struct Sight { first_low: vec4u, first_high: vec4u, end_low: vec4u, end_high: vec4u }

var<private> queries: array<Piece, QUERIES>;
var<private> sums: array<Piece, QUERIES>;
var<private> columns: array<u32, FOURS>;  // of a lane, from where a head begins
var<private> highest: Numbers;
var<private> denominators: Numbers;  // of the keys that the lane weighs

fn number_of(numbers: Numbers, t: u32) -> f32 { return select(numbers.high[t & 3u], numbers.low[t & 3u], t < 4u); }

fn dot_of(x: Piece, y: Piece) -> f32 {
  var sum = dot(x[0], y[0]) + dot(x[B], y[B]);
  if (EIGHTS > 1u) { sum += dot(x[C], y[C]) + dot(x[D], y[D]); }
  if (EIGHTS > 2u) { sum += dot(x[E], y[E]) + dot(x[F], y[F]); }
  if (EIGHTS > 3u) { sum += dot(x[G], y[G]) + dot(x[H], y[H]); }
  return sum;
}

// x * by + y * times.
fn add_to_sum(x: ptr<private, Piece>, by: f32, y: Piece, times: f32) {
  (*x)[0] = (*x)[0] * by + y[0] * times;
  (*x)[B] = (*x)[B] * by + y[B] * times;
  if (EIGHTS > 1u) { (*x)[C] = (*x)[C] * by + y[C] * times; (*x)[D] = (*x)[D] * by + y[D] * times; }
  if (EIGHTS > 2u) { (*x)[E] = (*x)[E] * by + y[E] * times; (*x)[F] = (*x)[F] * by + y[F] * times; }
  if (EIGHTS > 3u) { (*x)[G] = (*x)[G] * by + y[G] * times; (*x)[H] = (*x)[H] * by + y[H] * times; }
}

fn low_products(k: Piece) -> vec4f {
  var products = vec4f(dot_of(queries[0], k), 0.0, 0.0, 0.0);
  if (QUERIES > 1u) { products.y = dot_of(queries[Q1], k); }
  if (QUERIES > 2u) { products.z = dot_of(queries[Q2], k); }
  if (QUERIES > 3u) { products.w = dot_of(queries[Q3], k); }
  return products;
}

fn high_products(k: Piece) -> vec4f {
  var products = vec4f(dot_of(queries[Q4], k), 0.0, 0.0, 0.0);
  if (QUERIES > 5u) { products.y = dot_of(queries[Q5], k); }
  if (QUERIES > 6u) { products.z = dot_of(queries[Q6], k); }
  if (QUERIES > 7u) { products.w = dot_of(queries[Q7], k); }
  return products;
}

fn add_to_low_sums(by: vec4f, v: Piece, times: vec4f) {
  add_to_sum(&sums[0], by.x, v, times.x);
  if (QUERIES > 1u) { add_to_sum(&sums[Q1], by.y, v, times.y); }
  if (QUERIES > 2u) { add_to_sum(&sums[Q2], by.z, v, times.z); }
  if (QUERIES > 3u) { add_to_sum(&sums[Q3], by.w, v, times.w); }
}

fn add_to_high_sums(by: vec4f, v: Piece, times: vec4f) {
  add_to_sum(&sums[Q4], by.x, v, times.x);
  if (QUERIES > 5u) { add_to_sum(&sums[Q5], by.y, v, times.y); }
  if (QUERIES > 6u) { add_to_sum(&sums[Q6], by.z, v, times.z); }
  if (QUERIES > 7u) { add_to_sum(&sums[Q7], by.w, v, times.w); }
}

fn cached(kind: u32, i: u32) -> vec4f {
  if (kind == KEY) { return k_at(i); }
  return v_at(i);
}

fn piece_of(kind: u32, row: u32) -> Piece {
  var x: Piece;
  x[0] = cached(kind, row + columns[0]);
  x[B] = cached(kind, row + columns[B]);
  if (EIGHTS > 1u) { x[C] = cached(kind, row + columns[C]); x[D] = cached(kind, row + columns[D]); }
  if (EIGHTS > 2u) { x[E] = cached(kind, row + columns[E]); x[F] = cached(kind, row + columns[F]); }
  if (EIGHTS > 3u) { x[G] = cached(kind, row + columns[G]); x[H] = cached(kind, row + columns[H]); }
  return x;
}

fn query_piece(head: Head, place: u32, scale: f32, lane: u32) -> Piece {
  let statistics = head_statistics(head);
  var x: Piece;
  var e = 0u;
  loop {
    let eight = turned(head, lane * EIGHTS + e, place, statistics);
    x[2u * e] = eight.low * scale;
    x[2u * e + 1u] = eight.high * scale;
    continuing { e++; break if e == EIGHTS; }
  }
  return x;
}

fn begin_attending(lane: u32) {
  for (var e = 0u; e < EIGHTS; e++) {
    columns[2u * e] = low_of(lane * EIGHTS + e);
    columns[2u * e + 1u] = high_of(lane * EIGHTS + e);
  }
  sums = array<Piece, QUERIES>();
  highest = Numbers(vec4f(MASKED), vec4f(MASKED));
  denominators = Numbers();
}

fn scores_of(products: vec4f, seen: vec4<bool>) -> vec4f {
  let scores = vec4f(score_of(products.x), score_of(products.y), score_of(products.z), score_of(products.w));
  return select(vec4f(MASKED), scores, seen);
}

// What four queries' scores of a lane's key become, and what sums so far are to be scaled by.
struct Weighed { weights: vec4f, correction: vec4f }

fn weigh(scores: vec4f, most: ptr<private, vec4f>, denominator: ptr<private, vec4f>) -> Weighed {
  let higher = max(*most, subgroupMax(scores));
  let weights = exp(scores - higher);
  let correction = exp(*most - higher);
  *most = higher;
  *denominator = *denominator * correction + weights;
  return Weighed(weights, correction);
}

// Online softmax over the keys from `begin` to `end`.
fn attend(begin: u32, end: u32, sight: Sight, lane: u32) {
  for (var base = begin; base < end; base += LANES) {
    let n_keys = min(LANES, end - base);
    var products = Numbers();
    var j = 0u;
    loop {
      let row = row_of(base + j);
      let k = piece_of(KEY, row);
      let low = subgroupAdd(low_products(k));
      products.low = select(products.low, low * k_scale(row), lane == j);
      if (QUERIES > 4u) {
        let high = subgroupAdd(high_products(k));
        products.high = select(products.high, high * k_scale(row), lane == j);
      }
      continuing { j++; break if j == n_keys; }
    }
    let key = vec4u(base + lane);
    let low = weigh(scores_of(products.low, (key >= sight.first_low) & (key < sight.end_low)),
                    &highest.low, &denominators.low);
    var high = Weighed();
    if (QUERIES > 4u) {
      high = weigh(scores_of(products.high, (key >= sight.first_high) & (key < sight.end_high)),
                   &highest.high, &denominators.high);
    }
    j = 0u;
    loop {
      let row = row_of(base + j);
      let v = piece_of(VALUE, row);
      let is_first = j == 0u;
      add_to_low_sums(select(vec4f(1.0), low.correction, is_first), v,
                      v_scale(row) * subgroupShuffle(low.weights, j));
      if (QUERIES > 4u) {
        add_to_high_sums(select(vec4f(1.0), high.correction, is_first), v,
                         v_scale(row) * subgroupShuffle(high.weights, j));
      }
      continuing { j++; break if j == n_keys; }
    }
  }
}

// Keeps what query number t attended to.
fn finish_query(t: u32, part: Part) {
  let denominator = subgroupAdd(number_of(denominators, t));
  for (var e = 0u; e < FOURS; e++) {
    keep_part(part, columns[e], sums[t][e], number_of(highest, t), denominator);
  }
}
