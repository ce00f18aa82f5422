// A worker that never answers.
