// The handlers that XLA calls; `cpu.py` checks their arguments.

#include <algorithm>
#include <cstring>
#include <vector>

#include "pages.h"
#include "product.h"
#include "xla/ffi/api/ffi.h"

namespace rstar {
namespace {

namespace ffi = xla::ffi;

bool is_float32(const ffi::AnyBuffer& x) {
  return x.element_type() == ffi::DataType::F32;
}

// out[i] = x . w[i], of x [R, I] and w[i] [O_i, I].
template <typename T, typename Item>
void products(ffi::ThreadPool& pool, const ffi::AnyBuffer& x,
              const std::vector<ffi::AnyBuffer>& weights,
              const std::vector<ffi::AnyBuffer>& outs) {
  Rows<T> rows(x.untyped_data(), x.dimensions()[0], x.dimensions()[1]);
  std::vector<int64_t> ends;
  int64_t end = 0;
  for (const auto& w : weights)
    ends.push_back(end += (w.dimensions()[0] + kBlock - 1) / kBlock);
  int64_t cost = end * kBlock * x.dimensions()[0] * x.dimensions()[1];
  parallel(pool, end, cost, [&](int64_t i) {
    size_t which = 0;
    while (i >= ends[which]) ++which;
    const auto& w = weights[which];
    product_block<T, Item>(rows, w.untyped_data(), w.dimensions()[0],
                           which ? i - ends[which - 1] : i,
                           static_cast<Item*>(outs[which].untyped_data()));
  });
}

ffi::Error Products(ffi::ThreadPool pool, ffi::AnyBuffer x,
                    ffi::RemainingArgs args, ffi::RemainingRets rets) {
  std::vector<ffi::AnyBuffer> weights, outs;
  for (size_t i = 0; i < args.size(); ++i) {
    auto weight = args.get<ffi::AnyBuffer>(i);
    auto out = rets.get<ffi::AnyBuffer>(i);
    if (!weight.has_value()) return weight.error();
    if (!out.has_value()) return out.error();
    weights.push_back(*weight);
    outs.push_back(**out);
  }
  if (is_float32(x))
    products<Float32, float>(pool, x, weights, outs);
  else if (is_float32(outs[0]))
    products<BFloat16, float>(pool, x, weights, outs);
  else
    products<BFloat16, uint16_t>(pool, x, weights, outs);
  return ffi::Error::Success();
}

template <typename T>
void gated(ffi::ThreadPool& pool, const ffi::AnyBuffer& x,
           const ffi::AnyBuffer& gate, const ffi::AnyBuffer& up, void* out) {
  Rows<T> rows(x.untyped_data(), x.dimensions()[0], x.dimensions()[1]);
  int64_t outs = gate.dimensions()[0];
  int64_t cost = 2 * outs * x.dimensions()[0] * x.dimensions()[1];
  parallel(pool, (outs + kBlock - 1) / kBlock, cost, [&](int64_t i) {
    gated_block<T>(rows, gate.untyped_data(), up.untyped_data(), outs, i,
                   static_cast<typename T::Item*>(out));
  });
}

ffi::Error Gated(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer gate,
                 ffi::AnyBuffer up, ffi::Result<ffi::AnyBuffer> out) {
  auto run = is_float32(x) ? gated<Float32> : gated<BFloat16>;
  run(pool, x, gate, up, out->untyped_data());
  return ffi::Error::Success();
}

// Returns the pages that a call may change.
//
// Input and output share memory, unless the compiler has copied.
char* own(const ffi::AnyBuffer& pages, ffi::Result<ffi::AnyBuffer>& changed) {
  if (changed->untyped_data() != pages.untyped_data())
    std::memcpy(changed->untyped_data(), pages.untyped_data(),
                pages.size_bytes());
  return static_cast<char*>(changed->untyped_data());
}

ffi::Error CopyPages(ffi::ThreadPool pool, int64_t count, ffi::AnyBuffer pages,
                     ffi::Buffer<ffi::S32> sources,
                     ffi::Buffer<ffi::S32> targets,
                     ffi::Result<ffi::AnyBuffer> new_pages) {
  char* all = own(pages, new_pages);
  int64_t size = pages.size_bytes() / pages.dimensions()[0];
  std::vector<std::pair<int64_t, int64_t>> copies;
  for (size_t i = 0; i < targets.element_count(); ++i) {
    int64_t from = sources.typed_data()[i], to = targets.typed_data()[i];
    if (0 <= to && to < count)
      copies.emplace_back(std::clamp<int64_t>(from, 0, count - 1), to);
  }
  int64_t layers = pages.dimensions()[0] / count;
  parallel(pool, layers, layers * copies.size() * size, [&](int64_t layer) {
    char* first = all + layer * count * size;
    for (auto [from, to] : copies)
      std::memcpy(first + to * size, first + from * size, size);
  });
  return ffi::Error::Success();
}

ffi::Error AttendPages(ffi::ThreadPool pool, int64_t count, int64_t window,
                       ffi::AnyBuffer q, ffi::AnyBuffer key,
                       ffi::AnyBuffer value, ffi::AnyBuffer pages,
                       ffi::Buffer<ffi::S32> tables,
                       ffi::Buffer<ffi::S32> rows,
                       ffi::Buffer<ffi::S32> positions,
                       ffi::Buffer<ffi::S32> layer,
                       ffi::Result<ffi::AnyBuffer> out,
                       ffi::Result<ffi::AnyBuffer> new_pages) {
  char* changed = own(pages, new_pages);
  auto all = pages.dimensions(), size = q.dimensions();
  int64_t first = count * std::clamp<int64_t>(layer.typed_data()[0], 0,
                                              all[0] / count - 1);
  auto run = [&](auto kind) {
    using T = decltype(kind);
    auto at = [](const auto& x) {
      return static_cast<typename T::Item*>(x.untyped_data());
    };
    attend_pages(
        pool, Paged<T>{size[0], all[1], size[1] / all[1], size[2],
                       tables.dimensions()[0], tables.dimensions()[1], count,
                       window, at(q), at(key), at(value),
                       reinterpret_cast<typename T::Item*>(changed) +
                           first * all[1] * all[2] * all[3],
                       tables.typed_data(), rows.typed_data(),
                       positions.typed_data(), at(*out)});
  };
  if (is_float32(q))
    run(Float32());
  else
    run(BFloat16());
  return ffi::Error::Success();
}

using Any = ffi::AnyBuffer;
using Ints32 = ffi::Buffer<ffi::S32>;

}  // namespace
}  // namespace rstar

XLA_FFI_DEFINE_HANDLER_SYMBOL(rstar_products, rstar::Products,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rstar::Any>()
                                  .RemainingArgs()
                                  .RemainingRets());

XLA_FFI_DEFINE_HANDLER_SYMBOL(rstar_gated, rstar::Gated,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rstar::Any>()
                                  .Arg<rstar::Any>()
                                  .Arg<rstar::Any>()
                                  .Ret<rstar::Any>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(rstar_copy_pages, rstar::CopyPages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Attr<int64_t>("count")
                                  .Arg<rstar::Any>()
                                  .Arg<rstar::Ints32>()
                                  .Arg<rstar::Ints32>()
                                  .Ret<rstar::Any>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(rstar_attend_pages, rstar::AttendPages,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Attr<int64_t>("count")
                                  .Attr<int64_t>("window")
                                  .Arg<rstar::Any>()
                                  .Arg<rstar::Any>()
                                  .Arg<rstar::Any>()
                                  .Arg<rstar::Any>()
                                  .Arg<rstar::Ints32>()
                                  .Arg<rstar::Ints32>()
                                  .Arg<rstar::Ints32>()
                                  .Arg<rstar::Ints32>()
                                  .Ret<rstar::Any>()
                                  .Ret<rstar::Any>());
