// Vectors of sixteen 32-bit words, each a float32 or two bfloat16.
//
// GCC's and Clang's vector types compile to one AVX-512 register, two of AVX2,
// or four of NEON.

#ifndef RSTAR_JAX_NATIVE_LANES_H_
#define RSTAR_JAX_NATIVE_LANES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace rstar {

constexpr int kLanes = 16;
// Lower than any score, and finite.
constexpr float kLowest = -1e30f;
typedef float Floats __attribute__((vector_size(64), may_alias));
typedef uint32_t Words __attribute__((vector_size(64), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), may_alias));
typedef uint16_t Halves __attribute__((vector_size(32), may_alias));

// Element types of rows, with the number of elements in a word.
struct Float32 {
  using Item = float;
  static constexpr int kPerWord = 1;
};
struct BFloat16 {
  using Item = uint16_t;
  static constexpr int kPerWord = 2;
};

template <typename To, typename From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename V>
inline V load(const void* from) {
  V to;
  std::memcpy(&to, from, sizeof(to));
  return to;
}

template <typename V>
inline void store(void* to, V from) {
  std::memcpy(to, &from, sizeof(from));
}

inline Words splat(uint32_t x) { return x - Words{}; }
inline Floats splat(float x) { return x - Floats{}; }

// Returns sum + a * b, rounded once where the processor can.
//
// A compiler that is free to fuse or not decides by the loop around it, and a
// sum would depend on the tile that computes it.
inline Floats fused(Floats sum, Floats a, Floats b) {
#if defined(__AVX512F__)
  return bits<Floats>(_mm512_fmadd_ps(bits<__m512>(a), bits<__m512>(b),
                                      bits<__m512>(sum)));
#elif defined(__FMA__)
  struct Parts {
    __m256 of[2];
  } x = bits<Parts>(sum), y = bits<Parts>(a), z = bits<Parts>(b);
  for (int i = 0; i < 2; ++i)
    x.of[i] = _mm256_fmadd_ps(y.of[i], z.of[i], x.of[i]);
  return bits<Floats>(x);
#elif defined(__aarch64__)
  struct Parts {
    float32x4_t of[4];
  } x = bits<Parts>(sum), y = bits<Parts>(a), z = bits<Parts>(b);
  for (int i = 0; i < 4; ++i) x.of[i] = vfmaq_f32(x.of[i], y.of[i], z.of[i]);
  return bits<Floats>(x);
#else
  return sum + a * b;
#endif
}

// Returns sum + a * b, for the float32 or for both bfloat16 of each word.
template <typename T>
inline Floats multiply_add(Floats sum, Words a, Words b) {
  if constexpr (T::kPerWord == 1) {
    return fused(sum, bits<Floats>(a), bits<Floats>(b));
  } else {
#ifdef __AVX512BF16__
    return bits<Floats>(_mm512_dpbf16_ps(
        bits<__m512>(sum), bits<__m512bh>(a), bits<__m512bh>(b)));
#else
    sum = fused(sum, bits<Floats>(a << 16), bits<Floats>(b << 16));
    return fused(sum, bits<Floats>(a & 0xffff0000u),
                 bits<Floats>(b & 0xffff0000u));
#endif
  }
}

// Rounds to the nearest bfloat16, ties to even; the result is the lower half.
inline Words round_to_bfloat16(Floats x) {
  Words word = bits<Words>(x);
  return (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
}

inline void store_items(float* to, Floats x) { store(to, x); }
inline void store_items(uint16_t* to, Floats x) {
#ifdef __AVX512BF16__
  store(to, _mm512_cvtneps_pbh(bits<__m512>(x)));
#else
  store(to, __builtin_convertvector(round_to_bfloat16(x), Halves));
#endif
}

inline Floats load_items(const float* from) { return load<Floats>(from); }
inline Floats load_items(const uint16_t* from) {
  Words wide = __builtin_convertvector(load<Halves>(from), Words);
  return bits<Floats>(wide << 16);
}

// Swaps blocks of D lanes between r[i] and r[i + D].
template <int D>
inline void exchange(Words* r) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & D) continue;
    Words a = r[i], b = r[i + D];
    if constexpr (D == 8) {
      r[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18,
                                     19, 20, 21, 22, 23);
      r[i + D] = __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24,
                                         25, 26, 27, 28, 29, 30, 31);
    } else if constexpr (D == 4) {
      r[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10,
                                     11, 24, 25, 26, 27);
      r[i + D] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12,
                                         13, 14, 15, 28, 29, 30, 31);
    } else if constexpr (D == 2) {
      r[i] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24,
                                     25, 12, 13, 28, 29);
      r[i + D] = __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10,
                                         11, 26, 27, 14, 15, 30, 31);
    } else {
      r[i] = __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24,
                                     10, 26, 12, 28, 14, 30);
      r[i + D] = __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9,
                                         25, 11, 27, 13, 29, 15, 31);
    }
  }
}

// Swaps lane j of r[i] with lane i of r[j].
inline void transpose(Words* r) {
  exchange<8>(r);
  exchange<4>(r);
  exchange<2>(r);
  exchange<1>(r);
}

inline Floats maximum(Floats a, Floats b) { return a > b ? a : b; }

inline float sum_of(Floats x) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps(bits<__m512>(x));
#else
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
#endif
}

inline float maximum_of(Floats x) {
#ifdef __AVX512F__
  return _mm512_reduce_max_ps(bits<__m512>(x));
#else
  float most = x[0];
  for (int i = 1; i < kLanes; ++i) most = std::max(most, x[i]);
  return most;
#endif
}

// Returns 2^x to 2e-7 of it, for x up to 1, and x clipped to -126.
//
// With x = n + r and |r| <= 1/2, it is a power of two times a polynomial in r.
inline Floats power_of_two(Floats x) {
  x = maximum(x, splat(-126.0f));
  // Adding 1.5 * 2^23 rounds to an integer, in the lowest bits.
  Floats turns = x + 12582912.0f;
  Words power = bits<Words>(turns) << 23;
  x -= turns - 12582912.0f;
  Floats y = x * 1.3264727197e-3f + 9.6715126396e-3f;
  y = y * x + 5.5507337433e-2f;
  y = y * x + 2.4022242085e-1f;
  y = y * x + 6.9314697760e-1f;
  y = y * x + 1.0f;
  return bits<Floats>(bits<Words>(y) + power);
}

// Returns e^x to 1.1 units in the last place, with x clipped to [-87, 88].
//
// With x = n ln 2 + r and |r| <= ln 2 / 2, it is a power of two times a
// polynomial in r (Cephes' expf). ln 2 is split into two parts, the first of
// few digits, so that r is exact.
inline Floats exponential(Floats x) {
  x = maximum(x, splat(-87.0f));
  x = x < 88.0f ? x : splat(88.0f);
  // Adding 1.5 * 2^23 rounds to an integer, in the lowest bits.
  Floats turns = x * 1.44269504f + 12582912.0f;
  Words power = bits<Words>(turns) << 23;
  turns -= 12582912.0f;
  x -= turns * 0.693359375f;
  x -= turns * -2.12194440e-4f;
  Floats y = x * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * x + 8.3334519073e-3f;
  y = y * x + 4.1665795894e-2f;
  y = y * x + 1.6666665459e-1f;
  y = y * x + 5.0000001201e-1f;
  y = y * x * x + x + 1.0f;
  return bits<Floats>(bits<Words>(y) + power);
}

}  // namespace rstar

#endif  // RSTAR_JAX_NATIVE_LANES_H_
