// Products of few rows [R, I] with weights [O, I], parallel over outputs.

#ifndef RSTAR_JAX_NATIVE_PRODUCT_H_
#define RSTAR_JAX_NATIVE_PRODUCT_H_

#include "tiles.h"
#include "work.h"

namespace rstar {

// Outputs of one task: a multiple of every tile's outputs.
constexpr int64_t kBlock = 48;

// Rows packed into vectors, in chunks that are multiplied at once.
//
// Chunks are as few as can be, and differ by one vector at most: nothing is
// computed for vectors without rows.
template <typename T>
class Rows {
 public:
  Rows(const void* x, int64_t rows, int64_t inner)
      : words(inner / T::kPerWord),
        rows_(rows),
        all_((rows + kLanes - 1) / kLanes) {
    static thread_local Scratch scratch;
    chunks = (all_ + kMostVectors - 1) / kMostVectors;
    packed_ = scratch.get(all_ * words);
    for (int64_t c = 0; c < chunks; ++c) {
      const uint32_t* pointers[kMostVectors * kLanes];
      for (int64_t i = 0; i < count(c); ++i)
        pointers[i] =
            static_cast<const uint32_t*>(x) + (first(c) + i) * words;
      pack(pointers, count(c), words, vectors(c), packed(c));
    }
  }

  int vectors(int64_t chunk) const {
    return all_ / chunks + (chunk < all_ % chunks);
  }
  int64_t first(int64_t chunk) const {
    return kLanes * (chunk * (all_ / chunks) + std::min(chunk, all_ % chunks));
  }
  int64_t count(int64_t chunk) const {
    return std::min<int64_t>(rows_ - first(chunk), vectors(chunk) * kLanes);
  }

  // Multiplies a chunk by up to kBlock outputs: sums[o * vectors + n].
  void multiply_by(const uint32_t* w, int64_t outs, int64_t chunk,
                   Floats* sums) const {
    const Words* x = packed(chunk);
    if (vectors(chunk) == 1)
      multiply<T, 1>(w, words, x, words, outs, sums);
    else if (vectors(chunk) == 2)
      multiply<T, 2>(w, words, x, words, outs, sums);
    else
      multiply<T, 3>(w, words, x, words, outs, sums);
  }

  int64_t words, chunks;

 private:
  Words* packed(int64_t chunk) const {
    return packed_ + first(chunk) / kLanes * words;
  }

  int64_t rows_, all_;
  Words* packed_;
};

// Stores sums[o * vectors + n] of rows as [count][all], from `out` on.
template <typename Item>
void store_rows(const Floats* sums, int vectors, int64_t count, int64_t outs,
                int64_t all, Item* out) {
  for (int n = 0; n < vectors; ++n) {
    int64_t some = std::min<int64_t>(count - n * kLanes, kLanes);
    Item* rows = out + n * kLanes * all;
    int64_t o = 0;
    for (; o + kLanes <= outs; o += kLanes) {
      Words r[kLanes];
      for (int i = 0; i < kLanes; ++i)
        r[i] = bits<Words>(sums[(o + i) * vectors + n]);
      transpose(r);
      for (int i = 0; i < some; ++i)
        store_items(rows + i * all + o, bits<Floats>(r[i]));
    }
    for (; o < outs; ++o) {
      Item items[kLanes];
      store_items(items, sums[o * vectors + n]);
      for (int i = 0; i < some; ++i) rows[i * all + o] = items[i];
    }
  }
}

// out[R, outs] = x . w, for the outputs of one block.
template <typename T, typename Item>
void product_block(const Rows<T>& x, const void* w, int64_t outs, int64_t block,
                   Item* out) {
  int64_t start = block * kBlock, some = std::min(kBlock, outs - start);
  const auto* weights = static_cast<const uint32_t*>(w) + start * x.words;
  Floats sums[kBlock * kMostVectors];
  for (int64_t c = 0; c < x.chunks; ++c) {
    x.multiply_by(weights, some, c, sums);
    store_rows(sums, x.vectors(c), x.count(c), some, outs,
               out + x.first(c) * outs + start);
  }
}

// out[R, outs] = silu(x . gate) * (x . up), for the outputs of one block.
template <typename T>
void gated_block(const Rows<T>& x, const void* gate, const void* up,
                 int64_t outs, int64_t block, typename T::Item* out) {
  int64_t start = block * kBlock, some = std::min(kBlock, outs - start);
  const auto* gates = static_cast<const uint32_t*>(gate) + start * x.words;
  const auto* ups = static_cast<const uint32_t*>(up) + start * x.words;
  Floats sums[kBlock * kMostVectors], others[kBlock * kMostVectors];
  for (int64_t c = 0; c < x.chunks; ++c) {
    x.multiply_by(gates, some, c, sums);
    x.multiply_by(ups, some, c, others);
    for (int64_t i = 0; i < some * x.vectors(c); ++i)
      sums[i] *= others[i] / (1.0f + exponential(-sums[i]));
    store_rows(sums, x.vectors(c), x.count(c), some, outs,
               out + x.first(c) * outs + start);
  }
}

}  // namespace rstar

#endif  // RSTAR_JAX_NATIVE_PRODUCT_H_
