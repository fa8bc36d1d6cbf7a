// Attention of tokens to the pages of their paths, where it also writes their
// keys and values.
//
// Letters: T tokens, R rows of tables, P columns, K key/value heads, G query
// heads of each, H head. Of a key/value head a page has two matrices of words,
//   keys [H / per word][16 tokens], and values [16 tokens / per word][H],
// where a word of bfloat16 has two elements of a token's key, or the values of
// two tokens. So lanes are tokens for scores and elements for values, nothing
// is summed across lanes but the sum of a softmax, and a vector that is read
// serves all queries of a tile.
//
// A result depends on the query, and on keys and values by position, alone: a
// score is summed in order of elements, the softmax has the highest score of
// all, and values are summed in order of positions. Tiles, tasks and spans only
// say which queries go through these sums side by side.

#ifndef RSTAR_JAX_NATIVE_PAGES_H_
#define RSTAR_JAX_NATIVE_PAGES_H_

#include <cmath>
#include <utility>

#include "plan.h"
#include "tiles.h"
#include "work.h"

namespace rstar {

template <typename T>
struct Paged {
  using Item = typename T::Item;
  int64_t tokens, kv_heads, group, dim, rows, columns, count, window;
  const Item *q, *key, *value;                 // [T, K, G, H], [T, K, H].
  Item* pages;                                 // [count, K, 2, 16 * H].
  const int32_t *tables, *row_of, *positions;  // [R, P], [T], [T].
  Item* out;                                   // [T, K, G, H].

  // A page's keys and values of a head, as words; ids are clipped.
  uint32_t* keys(int64_t page, int64_t head) const {
    page = std::clamp<int64_t>(page, 0, count - 1);
    return reinterpret_cast<uint32_t*>(
        pages + (page * kv_heads + head) * 2 * kPage * dim);
  }
  uint32_t* values(int64_t page, int64_t head) const {
    return keys(page, head) + kPage * dim / T::kPerWord;
  }

  // The tokens that are neither empty slots nor outside of the tables.
  std::vector<Token> live() const {
    std::vector<Token> all;
    for (int64_t t = 0; t < tokens; ++t) {
      int64_t row = row_of[t], position = positions[t];
      if (row < 0 || row >= rows) continue;
      if (position < 0 || position >= columns * kPage) continue;
      int64_t begin = window ? std::max<int64_t>(0, position + 1 - window) : 0;
      all.push_back({t, tables + row * columns, begin, position + 1});
    }
    return all;
  }
};

// Writes a token's key and value of a head to its page.
template <typename T>
void write_token(const Paged<T>& a, const Token& token, int64_t head) {
  using Item = typename T::Item;
  constexpr int P = T::kPerWord;
  int64_t column = (token.end - 1) / kPage, place = (token.end - 1) % kPage;
  int64_t page = token.table[column];
  if (page < 0 || page >= a.count) return;
  int64_t from = (token.slot * a.kv_heads + head) * a.dim;
  const auto* key = reinterpret_cast<const uint32_t*>(a.key + from);
  uint32_t* keys = a.keys(page, head) + place;
  for (int64_t w = 0; w < a.dim / P; ++w) keys[w * kPage] = key[w];
  auto* values = reinterpret_cast<Item*>(
      a.values(page, head) + place / P * a.dim) + place % P;
  for (int64_t h = 0; h < a.dim; ++h) values[h * P] = a.value[from + h];
}

// Scores of M queries with N pages: out[m * out_step + n * 16 + token].
//
// Word w of query m is q[w * step + m]. Meanwhile the pages ahead are fetched:
// as many words of keys, and of the values after them.
template <typename T, int M, int N>
void score(const uint32_t* q, int64_t step, const uint32_t* const* keys,
           const uint32_t* const* ahead, int64_t words, float* out,
           int64_t out_step) {
  Floats sum[M][N] = {};
  for (int64_t w = 0; w < words; ++w) {
    Words key[N];
    for (int n = 0; n < N; ++n) {
      key[n] = load<Words>(keys[n] + w * kPage);
      fetch(ahead[n] + w * kPage);
      fetch(ahead[n] + (words + w) * kPage);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      Words one = splat(q[w * step + m]);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n)
        sum[m][n] = multiply_add<T>(sum[m][n], one, key[n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n)
      store(out + m * out_step + n * kPage, sum[m][n]);
}

// Turns scores into the softmax weights of positions [begin, end), and returns
// their sum. Times `scale`, a score is a power of two.
//
// Both begin with position begin / 16 * 16, and may share memory. Weights are
// rounded to the type of values before they are summed; those of the first and
// the last page's other positions are zero.
template <typename T>
float shares_of(const float* scores, int64_t begin, int64_t end, float scale,
                typename T::Item* shares) {
  int64_t columns = (end - 1) / kPage + 1 - begin / kPage;
  auto seen = [&](int64_t column, Floats x, Floats other) {
    if (0 < column && column < columns - 1) return x;
    const Ints kTokens = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    int32_t first = begin % kPage - column * kPage;
    Ints at = kTokens - first;
    return at >= 0 & at < static_cast<int32_t>(end - begin) ? x : other;
  };
  Floats most = splat(kLowest);
  for (int64_t c = 0; c < columns; ++c)
    most = maximum(most, seen(c, load<Floats>(scores + c * kPage), most));
  Floats peak = splat(maximum_of(most) * scale), total = {};
  for (int64_t c = 0; c < columns; ++c) {
    Floats x = power_of_two(load<Floats>(scores + c * kPage) * scale - peak);
    store_items(shares + c * kPage, seen(c, x, Floats{}));
    total += load_items(shares + c * kPage);
  }
  return sum_of(total);
}

// Adds the values of positions [begin, end) to mixed[m * H + h], weighted.
//
// Of query m, word w of a column is shares[column * 16 / P + m * step + w].
template <typename T, int M>
void mix(const Paged<T>& a, const int32_t* table, int64_t head, int64_t begin,
         int64_t end, const uint32_t* shares, int64_t step, float* mixed) {
  constexpr int P = T::kPerWord;
  for (int64_t h = 0; h < a.dim; h += 2 * kLanes) {
    Floats sum[M][2];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
      for (int i = 0; i < 2; ++i)
        sum[m][i] = load<Floats>(mixed + m * a.dim + h + i * kLanes);
    for (int64_t column = begin / kPage; column * kPage < end; ++column) {
      const uint32_t* values = a.values(table[column], head) + h;
      const uint32_t* share = shares + column * (kPage / P);
      auto add = [&](int64_t w, Words mask) {
        Words x = load<Words>(values + w * a.dim) & mask;
        Words y = load<Words>(values + w * a.dim + kLanes) & mask;
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          Words one = splat(share[m * step + w]);
          sum[m][0] = multiply_add<T>(sum[m][0], one, x);
          sum[m][1] = multiply_add<T>(sum[m][1], one, y);
        }
      };
      int64_t first = std::max<int64_t>(begin - column * kPage, 0);
      int64_t last = std::min(end - column * kPage, kPage);
      // Of a pair, what lies outside may be anything, and counts for nothing.
      if (first % P) add(first / P, splat(0xffff0000u));
      for (int64_t w = (first + P - 1) / P; w < last / P; ++w)
        add(w, splat(0xffffffffu));
      if (last % P) add(last / P, splat(0x0000ffffu));
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
      for (int i = 0; i < 2; ++i)
        store(mixed + m * a.dim + h + i * kLanes, sum[m][i]);
  }
}

// Computes scores[query * positions + position], of a chunk's.
//
// Word w of its queries is q[w * step + query].
template <typename T>
void score_spans(const Paged<T>& a, const std::vector<Token>& tokens,
                 const Chunk& chunk, int64_t head, const uint32_t* q,
                 int64_t step, float* scores) {
  int64_t width = chunk.positions();
  auto keys_of = [&](const Span& span, int64_t column) {
    int64_t last = std::min(column, span.end - 1);
    return a.keys(tokens[span.first].table[last], head);
  };
  for (const Span& span : chunk.spans) {
    const Span& next = &span == &chunk.spans.back() ? span : (&span)[1];
    int64_t from = (span.first - chunk.first) * a.group;
    for (int64_t column = span.begin; column < span.end; column += 2) {
      const uint32_t *keys[2], *ahead[2];
      for (int n = 0; n < 2; ++n) {
        keys[n] = keys_of(span, column + n);
        ahead[n] = column + 2 + n < span.end ? keys_of(span, column + 2 + n)
                                             : keys_of(next, next.begin + n);
      }
      bool two = column + 1 < span.end;
      by_eight((span.last - span.first) * a.group, [&](int64_t i, auto count) {
        constexpr int M = decltype(count)::value;
        auto run = two ? score<T, M, 2> : score<T, M, 1>;
        run(q + from + i, step, keys, ahead, a.dim / T::kPerWord,
            scores + (from + i) * width + (column - chunk.begin) * kPage,
            width);
      });
    }
  }
}

// Adds a chunk's values to mixed[query * H + h], weighted.
//
// A query's weights take the place of its scores, and of less if they are
// bfloat16.
template <typename T>
void mix_spans(const Paged<T>& a, const std::vector<Token>& tokens,
               const Chunk& chunk, int64_t head, const float* scores,
               float* mixed) {
  int64_t width = chunk.positions();
  const auto* shares = reinterpret_cast<const uint32_t*>(scores);
  shares -= chunk.begin * (kPage / T::kPerWord);
  for (const Span& span : chunk.spans) {
    auto add = [&](int64_t first, int64_t last, int64_t begin, int64_t end) {
      if (begin >= end) return;
      int64_t from = (first - chunk.first) * a.group;
      by_eight((last - first) * a.group, [&](int64_t i, auto count) {
        mix<T, decltype(count)::value>(
            a, tokens[first].table, head, begin, end,
            shares + (from + i) * width, width, mixed + (from + i) * a.dim);
      });
    };
    // The pages of the span that a token sees whole, and parts at both ends.
    auto clip = [&](int64_t position) {
      return std::clamp(position, span.begin * kPage, span.end * kPage);
    };
    auto whole = [&](const Token& token) {
      int64_t begin = clip((token.begin + kPage - 1) / kPage * kPage);
      int64_t end = clip(token.end / kPage * kPage);
      return std::make_pair(begin, std::max(begin, end));
    };
    for (int64_t first = span.first, last; first < span.last; first = last) {
      auto [begin, end] = whole(tokens[first]);
      for (last = first + 1; last < span.last; ++last)
        if (whole(tokens[last]) != std::make_pair(begin, end)) break;
      for (int64_t t = first; t < last; ++t)
        add(t, t + 1, clip(tokens[t].begin), std::min(begin, tokens[t].end));
      add(first, last, begin, end);
      for (int64_t t = first; t < last; ++t)
        add(t, t + 1, std::max(end, tokens[t].begin), clip(tokens[t].end));
    }
  }
}

// Attends for a chunk's tokens and one key/value head.
template <typename T>
void attend_chunk(const Paged<T>& a, const std::vector<Token>& tokens,
                  const Chunk& chunk, int64_t head) {
  int64_t words = a.dim / T::kPerWord;
  int64_t queries = (chunk.last - chunk.first) * a.group;
  int64_t vectors = (queries + kLanes - 1) / kLanes;
  int64_t width = chunk.positions();

  static thread_local Scratch scratch;
  Words* packed = scratch.get(words * vectors + queries * width / kLanes +
                              queries * a.dim / kLanes + vectors);
  auto* scores = reinterpret_cast<float*>(packed + words * vectors);
  float* mixed = scores + queries * width;
  float* totals = mixed + queries * a.dim;

  auto token_of = [&](int64_t query) -> const Token& {
    return tokens[chunk.first + query / a.group];
  };
  auto place_of = [&](int64_t query) {
    int64_t row = token_of(query).slot * a.kv_heads + head;
    return (row * a.group + query % a.group) * a.dim;
  };
  std::vector<const uint32_t*> rows(queries);
  for (int64_t i = 0; i < queries; ++i)
    rows[i] = reinterpret_cast<const uint32_t*>(a.q + place_of(i));
  pack(rows.data(), queries, words, vectors, packed);

  const auto* q = reinterpret_cast<const uint32_t*>(packed);
  score_spans(a, tokens, chunk, head, q, vectors * kLanes, scores);

  float scale = static_cast<float>(1.4426950408889634 / std::sqrt(a.dim));
  for (int64_t i = 0; i < queries; ++i) {
    const Token& token = token_of(i);
    int64_t first = (token.begin / kPage - chunk.begin) * kPage;
    float* mine = scores + i * width;
    totals[i] = shares_of<T>(mine + first, token.begin, token.end, scale,
                             reinterpret_cast<typename T::Item*>(mine) + first);
  }

  std::fill(mixed, mixed + queries * a.dim, 0.0f);
  mix_spans(a, tokens, chunk, head, scores, mixed);
  for (int64_t i = 0; i < queries; ++i)
    for (int64_t h = 0; h < a.dim; h += kLanes)
      store_items(a.out + place_of(i) + h,
                  load<Floats>(mixed + i * a.dim + h) / totals[i]);
}

// Writes all tokens to their pages, then attends for each.
template <typename T, typename Pool>
void attend_pages(Pool& pool, const Paged<T>& a) {
  std::vector<Token> tokens = a.live();
  if (static_cast<int64_t>(tokens.size()) < a.tokens)
    std::fill(a.out, a.out + a.tokens * a.kv_heads * a.group * a.dim, 0);
  // As many queries as keep a vector of keys busy, and tasks as keep threads.
  int64_t most = kMostVectors * kLanes / a.group;
  int64_t tasks = 4 * pool.num_threads();
  most = std::min<int64_t>(most, tokens.size() * a.kv_heads / tasks);
  std::vector<Chunk> chunks =
      chunks_of(tokens, a.columns, std::max<int64_t>(most, 1));
  int64_t all = chunks.size() * a.kv_heads;
  int64_t width = a.kv_heads * a.dim, seen = 0;
  for (const Token& token : tokens) seen += token.end - token.begin;
  // An element that is written costs as much as several multiply-adds.
  parallel(pool, all, 16 * tokens.size() * width, [&](int64_t i) {
    const Chunk& chunk = chunks[i / a.kv_heads];
    for (int64_t t = chunk.first; t < chunk.last; ++t)
      write_token(a, tokens[t], i % a.kv_heads);
  });
  parallel(pool, all, 2 * seen * width * a.group, [&](int64_t i) {
    attend_chunk(a, tokens, chunks[i / a.kv_heads], i % a.kv_heads);
  });
}

}  // namespace rstar

#endif  // RSTAR_JAX_NATIVE_PAGES_H_
