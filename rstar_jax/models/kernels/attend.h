// Attention of one token of each candidate to its leaf's path and to its own
// tokens, in one softmax; it also caches the token's key and value.
//
// Letters: B leaves, C candidates, K key/value heads, G query heads of each, H
// head, T path, S own tokens. For one key/value head, the query heads of all
// candidates of a leaf are the rows of two products with the path. Only its own
// G heads attend to a candidate's tokens.

#ifndef RSTAR_JAX_NATIVE_ATTEND_H_
#define RSTAR_JAX_NATIVE_ATTEND_H_

#include <cmath>

#include "tiles.h"
#include "work.h"

namespace rstar {

template <typename Item>
struct Branches {
  int64_t leaves, candidates, kv_heads, group, dim, path, own;
  // The token's position among its candidate's, and its window (0: no limit).
  int64_t index, window;
  const Item *q;                    // [B, C, K, G, H]
  const Item *new_key, *new_value;  // [B, C, K, H]
  const Item *path_keys, *path_values;  // [B, K, T, H]
  const int32_t* lengths;               // [B]
  Item *own_keys, *own_values;          // [B, C, K, S, H]
  Item* out;                            // [B, C, K, G, H]
};

// Scores of G queries with `count` keys [count, H]: out[g * step + t].
//
// Padding up to the next multiple of 16 is kLowest.
template <typename T, int G>
void own_scores(const uint32_t* const* q, const typename T::Item* keys,
                int64_t count, int64_t dim, float* out, int64_t step) {
  int64_t words = dim / T::kPerWord;
  for (int64_t t = 0; t < count; t += kLanes) {
    int some = std::min<int64_t>(kLanes, count - t);
    Floats sums[G][kLanes] = {};
    for (int i = 0; i < some; ++i) {
      const auto* key =
          reinterpret_cast<const uint32_t*>(keys + (t + i) * dim);
      for (int64_t w = 0; w < words; w += kLanes) {
        Words part = load<Words>(key + w);
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g)
          sums[g][i] = multiply_add<T>(sums[g][i], part, load<Words>(q[g] + w));
      }
    }
    for (int g = 0; g < G; ++g) {
      Floats all = sums_of_each(sums[g]);
      for (int i = some; i < kLanes; ++i) all[i] = kLowest;
      store(out + g * step + t, all);
    }
  }
}

// Adds weighted values [count, H] to mixed[g * H + h], and divides by totals.
template <typename T, int G>
void own_mix(const float* shares, int64_t step, const typename T::Item* values,
             int64_t count, int64_t dim, const float* mixed,
             const float* totals, typename T::Item* out) {
  for (int64_t h = 0; h < dim; h += 2 * kLanes) {
    Floats sums[G][2];
    for (int g = 0; g < G; ++g)
      for (int i = 0; i < 2; ++i)
        sums[g][i] = load<Floats>(mixed + g * dim + h + i * kLanes);
    for (int64_t t = 0; t < count; ++t) {
      Floats a = load_items(values + t * dim + h);
      Floats b = load_items(values + t * dim + h + kLanes);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) {
        Floats share = splat(shares[g * step + t]);
        sums[g][0] += share * a;
        sums[g][1] += share * b;
      }
    }
    for (int g = 0; g < G; ++g)
      for (int i = 0; i < 2; ++i)
        store_items(out + g * dim + h + i * kLanes, sums[g][i] / totals[g]);
  }
}

// Packs bfloat16 values [count, H] into words of two tokens: [count / 2, H].
//
// An odd last token is paired with zeros.
inline void pair_tokens(const uint16_t* values, int64_t count, int64_t dim,
                        Words* out) {
  for (int64_t t = 0; t < count; t += 2) {
    for (int64_t h = 0; h < dim; h += 2 * kLanes) {
      Pairs a = load<Pairs>(values + t * dim + h), b = {};
      if (t + 1 < count) b = load<Pairs>(values + (t + 1) * dim + h);
      *out++ = bits<Words>(__builtin_shufflevector(
          a, b, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40,
          9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47));
      *out++ = bits<Words>(__builtin_shufflevector(
          a, b, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
          24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63));
    }
  }
}

// Turns scores[t * N + n] into softmax weights, and sums them in totals[n].
//
// float32 weights overwrite the scores; of bfloat16 a word has two tokens'.
template <typename T, int N>
void shares_of(Floats* scores, int64_t count, const Floats* peaks, float scale,
               Floats* totals) {
  for (int64_t t = 0; t < count; t += T::kPerWord)
    for (int n = 0; n < N; ++n) {
      Floats a = exponential((scores[t * N + n] - peaks[n]) * scale);
      totals[n] += a;
      if constexpr (T::kPerWord == 1) {
        scores[t * N + n] = a;
      } else {
        Floats b = {};
        if (t + 1 < count)
          b = exponential((scores[(t + 1) * N + n] - peaks[n]) * scale);
        totals[n] += b;
        scores[t / 2 * N + n] = bits<Floats>(round_to_bfloat16(a) |
                                             round_to_bfloat16(b) << 16);
      }
    }
}

// Transposes x[o * N + n], of 16 rows in lanes, to
// out[(n * 16 + row) * outs + o], for a multiple of 16 outputs.
template <int N>
void turn(const Words* x, int64_t outs, uint32_t* out) {
  for (int64_t o = 0; o < outs; o += kLanes)
    for (int n = 0; n < N; ++n) {
      Words r[kLanes];
      for (int i = 0; i < kLanes; ++i) r[i] = x[(o + i) * N + n];
      transpose(r);
      for (int i = 0; i < kLanes; ++i)
        store(out + (n * kLanes + i) * outs + o, r[i]);
    }
}

// Weights a path's values: mixed[lane * H + h] from shares[w * N + n].
//
// There are `words` words of weights, padded with zeros to a multiple of 16.
// `spare` has room for as many words as `mixed` and the padded weights.
template <typename T, int N>
void mix_path(const Words* shares, int64_t words, const Words* values,
              int64_t dim, Words* spare, float* mixed) {
#ifdef __AMX_BF16__
  if (T::kPerWord == 2 && has_matrix_unit()) {
    int64_t padded = (words + kLanes - 1) / kLanes * kLanes;
    int64_t wide = dim / kLanes;
    auto* rows = reinterpret_cast<uint32_t*>(spare);
    turn<N>(shares, padded, rows);
    MatrixUnit unit;
    for (int n = 0; n < N; ++n)
      for (int64_t h = 0; h < wide; h += 2)
        matrix_tile<2>(rows + n * kLanes * padded, padded, values + h, wide,
                       padded,
                       reinterpret_cast<Floats*>(mixed) + n * kLanes * wide + h,
                       wide);
    return;
  }
#endif
  multiply<T, N>(reinterpret_cast<const uint32_t*>(values), 1, dim, shares,
                 words, dim, reinterpret_cast<Floats*>(spare));
  turn<N>(spare, dim, reinterpret_cast<uint32_t*>(mixed));
}

// Attends for candidates [first, last) of a leaf and a key/value head, whose
// query heads fit in N vectors.
template <typename T, int N>
void attend_some(const Branches<typename T::Item>& a, int64_t leaf,
                 int64_t head, int64_t first, int64_t last) {
  using Item = typename T::Item;
  constexpr int P = T::kPerWord;
  int64_t words = a.dim / P, wide = a.dim / kLanes;
  int64_t lanes = (last - first) * a.group;
  int64_t length = std::clamp<int64_t>(a.lengths[leaf], 0, a.path);
  int64_t begin = 0, own_begin = 0;
  if (a.window) {
    begin = std::clamp<int64_t>(length + a.index + 1 - a.window, 0, length);
    own_begin = std::max<int64_t>(0, a.index + 1 - a.window);
  }
  int64_t seen = length - begin, own_seen = a.index + 1 - own_begin;
  int64_t own_step = (own_seen + kLanes - 1) / kLanes * kLanes;
  int64_t pairs = (seen + P - 1) / P;
  int64_t padded = (pairs + kLanes - 1) / kLanes * kLanes;

  static thread_local Scratch scratch;
  int64_t turned = std::max(padded, a.dim) * N;
  Words* packed = scratch.get(words * N + padded * P * N + own_step * N +
                              a.dim * N + turned + padded * wide);
  Words* scores = packed + words * N;
  auto* own = reinterpret_cast<float*>(scores + padded * P * N);
  auto* mixed = own + own_step * N * kLanes;
  Words* spare = reinterpret_cast<Words*>(mixed + a.dim * N * kLanes);
  Words* values = spare + turned;

  const uint32_t* rows[N * kLanes];
  for (int64_t c = first; c < last; ++c)
    for (int64_t g = 0; g < a.group; ++g) {
      int64_t row = ((leaf * a.candidates + c) * a.kv_heads + head) * a.group;
      rows[(c - first) * a.group + g] =
          reinterpret_cast<const uint32_t*>(a.q + (row + g) * a.dim);
    }
  pack(rows, lanes, words, N, packed);

  int64_t at = ((leaf * a.kv_heads + head) * a.path + begin) * a.dim;
  multiply<T, N>(reinterpret_cast<const uint32_t*>(a.path_keys + at), words, 1,
                 packed, words, seen, reinterpret_cast<Floats*>(scores));
  for (int64_t c = first; c < last; ++c) {
    int64_t row = (leaf * a.candidates + c) * a.kv_heads + head;
    int64_t place = (row * a.own + a.index) * a.dim;
    std::memcpy(a.own_keys + place, a.new_key + row * a.dim,
                a.dim * sizeof(Item));
    std::memcpy(a.own_values + place, a.new_value + row * a.dim,
                a.dim * sizeof(Item));
    by_eight(a.group, [&](int64_t g, auto count) {
      int64_t lane = (c - first) * a.group + g;
      own_scores<T, decltype(count)::value>(
          rows + lane, a.own_keys + (row * a.own + own_begin) * a.dim, own_seen,
          a.dim, own + lane * own_step, own_step);
    });
  }

  // One softmax over both parts; first the highest unscaled scores.
  float scale = 1 / std::sqrt(static_cast<float>(a.dim));
  auto* floats = reinterpret_cast<Floats*>(scores);
  Floats peak[N], total[N] = {};
  for (int n = 0; n < N; ++n) peak[n] = splat(kLowest);
  for (int64_t t = 0; t < seen; ++t)
    for (int n = 0; n < N; ++n) peak[n] = maximum(peak[n], floats[t * N + n]);
  auto* peaks = reinterpret_cast<float*>(peak);
  auto* totals = reinterpret_cast<float*>(total);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    float* mine = own + lane * own_step;
    Floats most = load<Floats>(mine), sum = {};
    for (int64_t t = kLanes; t < own_step; t += kLanes)
      most = maximum(most, load<Floats>(mine + t));
    peaks[lane] = std::max(peaks[lane], maximum_of(most));
    for (int64_t t = 0; t < own_step; t += kLanes) {
      Floats score = load<Floats>(mine + t);
      Floats share = exponential((score - peaks[lane]) * scale);
      store(mine + t, share);
      sum += share;
    }
    totals[lane] = sum_of(sum);
  }
  shares_of<T, N>(floats, seen, peak, scale, total);

  const auto* mixable = reinterpret_cast<const Words*>(a.path_values + at);
  if constexpr (P == 2) {
    pair_tokens(a.path_values + at, seen, a.dim, values);
    std::fill(values + pairs * wide, values + padded * wide, Words{});
    std::fill(scores + pairs * N, scores + padded * N, Words{});
    mixable = values;
  }
  mix_path<T, N>(scores, pairs, mixable, a.dim, spare, mixed);
  for (int64_t c = first; c < last; ++c) {
    int64_t row = (leaf * a.candidates + c) * a.kv_heads + head;
    by_eight(a.group, [&](int64_t g, auto count) {
      int64_t lane = (c - first) * a.group + g;
      own_mix<T, decltype(count)::value>(
          own + lane * own_step, own_step,
          a.own_values + (row * a.own + own_begin) * a.dim, own_seen, a.dim,
          mixed + lane * a.dim, totals + lane,
          a.out + (row * a.group + g) * a.dim);
    });
  }
}

// Attends for all candidates of all leaves.
template <typename T, typename Pool>
void attend(Pool& pool, const Branches<typename T::Item>& a) {
  // Candidates whose query heads fit in one product.
  int64_t most = std::max<int64_t>(1, kMostVectors * kLanes / a.group);
  int64_t chunks = (a.candidates + most - 1) / most;
  int64_t per = (a.candidates + chunks - 1) / chunks;
  int64_t vectors = (per * a.group + kLanes - 1) / kLanes;
  parallel(pool, a.leaves * a.kv_heads * chunks, [&](int64_t i) {
    int64_t first = i % chunks * per;
    int64_t last = std::min(first + per, a.candidates);
    if (first >= last) return;
    int64_t head = i / chunks % a.kv_heads, leaf = i / chunks / a.kv_heads;
    auto run = vectors == 1   ? attend_some<T, 1>
               : vectors == 2 ? attend_some<T, 2>
                              : attend_some<T, 3>;
    run(a, leaf, head, first, last);
  });
}

}  // namespace rstar

#endif  // RSTAR_JAX_NATIVE_ATTEND_H_
