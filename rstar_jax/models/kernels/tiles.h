// Small matrix products: broadcast words of weights times vectors of rows.
//
// Rows are the lanes of vectors: row r of a matrix [R, words] is lane r % 16 of
// vector r / 16 of each word. Weights are thus read once, in memory order, and
// nothing is summed across lanes.

#ifndef RSTAR_JAX_NATIVE_TILES_H_
#define RSTAR_JAX_NATIVE_TILES_H_

#include <type_traits>

#include "lanes.h"

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace rstar {

// Prefetches a cache line into L2, since L1 would be too small.
inline void fetch(const void* line) { __builtin_prefetch(line, 0, 2); }

// Most vectors of rows that are multiplied at once.
constexpr int kMostVectors = 3;

// Packs rows [count][words] into [words][vectors]; unused lanes are zero.
inline void pack(const uint32_t* const* rows, int64_t count, int64_t words,
                 int vectors, Words* out) {
  int64_t whole = words / kLanes * kLanes;
  for (int n = 0; n < vectors; ++n) {
    int64_t some = std::min<int64_t>(count - n * kLanes, kLanes);
    for (int64_t k = 0; k < whole; k += kLanes) {
      Words r[kLanes] = {};
      for (int i = 0; i < some; ++i)
        r[i] = load<Words>(rows[n * kLanes + i] + k);
      transpose(r);
      for (int i = 0; i < kLanes; ++i) out[(k + i) * vectors + n] = r[i];
    }
    for (int64_t k = whole; k < words; ++k) {
      Words r = {};
      for (int i = 0; i < some; ++i) r[i] = rows[n * kLanes + i][k];
      out[k * vectors + n] = r;
    }
  }
}

// Computes M outputs for N vectors of rows: out[m * N + n].
//
// Word k of output m is w[m * out_step + k]; that of the rows is x[k * N + n].
template <typename T, int M, int N>
inline void tile(const uint32_t* w, int64_t out_step, const Words* x,
                 int64_t words, Floats* out) {
  Floats sum[M][N] = {};
  for (int64_t k = 0; k < words; ++k) {
    // Prefetch a line of each of the next tile's weights.
    if (k % kLanes == 0)
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) fetch(w + (M + m) * out_step + k);
    Words row[N];
#pragma GCC unroll 3
    for (int n = 0; n < N; ++n) row[n] = x[k * N + n];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      Words one = splat(w[m * out_step + k]);
#pragma GCC unroll 3
      for (int n = 0; n < N; ++n)
        sum[m][n] = multiply_add<T>(sum[m][n], one, row[n]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int n = 0; n < N; ++n) out[m * N + n] = sum[m][n];
}

#ifdef __AMX_BF16__

// Asks Linux for permission to use the matrix unit (AMX).
inline bool has_matrix_unit() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool granted =
      syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

// Configures the unit's eight tiles as 16 rows of 64 bytes, for its lifetime.
class MatrixUnit {
 public:
  MatrixUnit() {
    alignas(64) uint8_t config[64] = {1};
    for (int i = 0; i < 8; ++i) {
      config[16 + 2 * i] = 64;
      config[48 + i] = kLanes;
    }
    _tile_loadconfig(config);
  }
  ~MatrixUnit() { _tile_release(); }
};

// Computes `tile` by the matrix unit, for 16 outputs of pairs of bfloat16.
//
// Words are contiguous and a multiple of 16; word k of the rows is
// x[k * x_step + n], and output m is out[m * step + n].
template <int N>
inline void matrix_tile(const uint32_t* w, int64_t out_step, const Words* x,
                        int64_t x_step, int64_t words, Floats* out,
                        int64_t step) {
  _tile_zero(0);
  if constexpr (N > 1) _tile_zero(1);
  if constexpr (N > 2) _tile_zero(2);
  for (int64_t k = 0; k < words; k += kLanes) {
    for (int i = 0; i < kLanes; ++i)
      fetch(w + (kLanes + i) * out_step + k);
    const Words* rows = x + k * x_step;
    _tile_loadd(6, w + k, out_step * 4);
    _tile_loadd(3, rows, x_step * 64);
    _tile_dpbf16ps(0, 6, 3);
    if constexpr (N > 1) {
      _tile_loadd(4, rows + 1, x_step * 64);
      _tile_dpbf16ps(1, 6, 4);
    }
    if constexpr (N > 2) {
      _tile_loadd(5, rows + 2, x_step * 64);
      _tile_dpbf16ps(2, 6, 5);
    }
  }
  _tile_stored(0, out, step * 64);
  if constexpr (N > 1) _tile_stored(1, out + 1, step * 64);
  if constexpr (N > 2) _tile_stored(2, out + 2, step * 64);
}

#endif  // __AMX_BF16__

// Computes `outs` outputs for N vectors of rows; see `tile` for the arguments.
template <typename T, int N>
inline void multiply(const uint32_t* w, int64_t out_step, const Words* x,
                     int64_t words, int64_t outs, Floats* out) {
  // As many sums as fit in registers beside the rows.
  constexpr int M = N == 1 ? 16 : N == 2 ? 12 : 8;
  int64_t o = 0;
#ifdef __AMX_BF16__
  if (T::kPerWord == 2 && words % kLanes == 0 && has_matrix_unit()) {
    MatrixUnit unit;
    for (; o + kLanes <= outs; o += kLanes)
      matrix_tile<N>(w + o * out_step, out_step, x, N, words, out + o * N, N);
  }
#endif
  for (; o + M <= outs; o += M)
    tile<T, M, N>(w + o * out_step, out_step, x, words, out + o * N);
  for (; o + 4 <= outs; o += 4)
    tile<T, 4, N>(w + o * out_step, out_step, x, words, out + o * N);
  for (; o < outs; ++o)
    tile<T, 1, N>(w + o * out_step, out_step, x, words, out + o * N);
}

// Calls f(i, M) for runs of M of `count` items, from i on, at most eight each.
template <typename F>
void by_eight(int64_t count, const F& f) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) f(i, std::integral_constant<int, 8>());
  switch (count - i) {
    case 1: return f(i, std::integral_constant<int, 1>());
    case 2: return f(i, std::integral_constant<int, 2>());
    case 3: return f(i, std::integral_constant<int, 3>());
    case 4: return f(i, std::integral_constant<int, 4>());
    case 5: return f(i, std::integral_constant<int, 5>());
    case 6: return f(i, std::integral_constant<int, 6>());
    case 7: return f(i, std::integral_constant<int, 7>());
  }
}

}  // namespace rstar

#endif  // RSTAR_JAX_NATIVE_TILES_H_
