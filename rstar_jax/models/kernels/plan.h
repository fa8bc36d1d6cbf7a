// Which tokens are taken together, and which pages are read once for several.
//
// Nothing here changes a result: it is the order and the size of work only.

#ifndef RSTAR_JAX_NATIVE_PLAN_H_
#define RSTAR_JAX_NATIVE_PLAN_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"

namespace rstar {

// Tokens of a page: one vector of scores.
constexpr int64_t kPage = kLanes;

// A token that attends to positions [begin, end) of its path, its own the last.
struct Token {
  int64_t slot;          // Its place in the arguments of the call.
  const int32_t* table;  // The pages of its path.
  int64_t begin, end;
};

// Tokens [first, last) whose tables agree in columns [begin, end).
struct Span {
  int64_t first, last, begin, end;
};

// Tokens of one task, and the spans of their pages, those of a token in order.
struct Chunk {
  int64_t first, last;  // Tokens.
  int64_t begin, end;   // Columns that one of them attends to.
  std::vector<Span> spans;

  int64_t positions() const { return (end - begin) * kPage; }
};

// Returns in [i] on how many first columns tokens i and i - 1 agree.
inline std::vector<int64_t> agreements(const std::vector<Token>& tokens,
                                       int64_t columns) {
  std::vector<int64_t> shared(tokens.size());
  for (size_t i = 1; i < tokens.size(); ++i) {
    const int32_t *a = tokens[i - 1].table, *b = tokens[i].table;
    shared[i] = a == b ? columns : std::mismatch(a, a + columns, b).first - a;
  }
  return shared;
}

// Appends the spans of tokens [first, last), which agree on `begin` columns.
inline void add_spans(const std::vector<Token>& tokens,
                      const std::vector<int64_t>& shared, int64_t first,
                      int64_t last, int64_t begin, std::vector<Span>& spans) {
  int64_t start = tokens[first].begin, stop = 0;
  for (int64_t i = first; i < last; ++i) {
    start = std::min(start, tokens[i].begin);
    stop = std::max(stop, tokens[i].end);
  }
  start = std::max(begin, start / kPage);
  stop = (stop + kPage - 1) / kPage;
  int64_t parting = stop;
  for (int64_t i = first + 1; i < last; ++i)
    parting = std::min(parting, shared[i]);
  if (start < parting) spans.push_back({first, last, start, parting});
  if (parting == stop) return;
  for (int64_t from = first, i = first + 1; i <= last; ++i)
    if (i == last || shared[i] == parting) {
      add_spans(tokens, shared, from, i, parting, spans);
      from = i;
    }
}

// Cuts tokens into chunks of at most `most`, where tables part soonest.
inline std::vector<Chunk> chunks_of(const std::vector<Token>& tokens,
                                    int64_t columns, int64_t most) {
  std::vector<int64_t> shared = agreements(tokens, columns);
  std::vector<Chunk> chunks;
  int64_t all = tokens.size();
  for (int64_t first = 0, last; first < all; first = last) {
    last = std::min(first + most, all);
    if (last < all)
      for (int64_t i = last - 1; i > first + most / 2; --i)
        if (shared[i] < shared[last]) last = i;
    Chunk chunk{first, last, columns, 0, {}};
    for (int64_t i = first; i < last; ++i) {
      chunk.begin = std::min(chunk.begin, tokens[i].begin / kPage);
      chunk.end = std::max(chunk.end, (tokens[i].end - 1) / kPage + 1);
    }
    add_spans(tokens, shared, first, last, 0, chunk.spans);
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

}  // namespace rstar

#endif  // RSTAR_JAX_NATIVE_PLAN_H_
