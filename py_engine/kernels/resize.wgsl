// One pixel of a resized line, as PIL makes it: the weighted mean of the pixels under a filter that
// is as wide as the line shrinks, rounded.
struct Span { first: u32, end: u32, center: f32, stretch: f32 }

fn span_of(place: u32, length: u32) -> Span {
  let scale = f32(length) / f32(SIZE);
  let stretch = max(scale, 1.0);
  let center = (f32(place) + 0.5) * scale;
  let first = u32(max(0.0, trunc(center - SUPPORT * stretch + 0.5)));
  let end = min(length, u32(center + SUPPORT * stretch + 0.5));
  return Span(first, end, center, stretch);
}

fn rgba(word: u32) -> vec4f {
  return vec4f(vec4u(word, word >> 8u, word >> 16u, word >> 24u) & vec4u(255u));
}

fn resized(span: Span, first: u32, step: u32) -> vec4f {
  var sum = vec4f(0.0);
  var weights = 0.0;
  for (var i = span.first; i < span.end; i++) {
    let weight = filtered((f32(i) + 0.5 - span.center) / span.stretch);
    sum += weight * rgba(pixels[first + i * step]);
    weights += weight;
  }
  return clamp(floor(sum / weights + 0.5), vec4f(0.0), vec4f(255.0));
}
