// Copies between ordinary host memory and the device by way of pinned memory, which the copy engine reads and writes without
// the processor. Each direction has two halves, so that one is filled or emptied while the other is on its way.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>

#include "cuda/handles.h"

namespace revnet::cuda {

class Staging {
 public:
  explicit Staging(cudaStream_t stream) : stream_(stream) {}

  // Enqueues the copy; `from` may be changed at once. Waits only where both halves are full of copies that have not run.
  void upload(void* to, const void* from, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
      if (used_ == kHalfBytes) turnOver();
      const size_t part = std::min(bytes - done, kHalfBytes - used_);
      std::byte* const staged = up_.half(filling_) + used_;
      std::memcpy(staged, static_cast<const std::byte*>(from) + done, part);
      check(cudaMemcpyAsync(static_cast<std::byte*>(to) + done, staged, part, cudaMemcpyHostToDevice, stream_), "upload");
      used_ += part;
      done += part;
    }
  }

  // Waits for all that was enqueued before, and for the copy.
  void download(void* to, const void* from, size_t bytes) {
    const auto partBytes = [&](size_t part) { return std::min(bytes - part * kHalfBytes, kHalfBytes); };
    const size_t parts = (bytes + kHalfBytes - 1) / kHalfBytes;
    for (size_t part = 0; part <= parts; ++part) {
      if (part < parts) {
        const std::byte* const source = static_cast<const std::byte*>(from) + part * kHalfBytes;
        check(cudaMemcpyAsync(down_.half(part % 2), source, partBytes(part), cudaMemcpyDeviceToHost, stream_), "download");
        check(cudaEventRecord(down_.copied[part % 2].get(), stream_), "download");
      }
      if (part > 0) {
        const size_t last = part - 1;
        check(cudaEventSynchronize(down_.copied[last % 2].get()), "download");
        std::memcpy(static_cast<std::byte*>(to) + last * kHalfBytes, down_.half(last % 2), partBytes(last));
      }
    }
  }

 private:
  static constexpr size_t kHalfBytes = size_t{2} << 20;

  struct Halves {
    PinnedMemory memory = makePinnedMemory(2 * kHalfBytes);
    std::array<Event, 2> copied = {makeEvent(), makeEvent()};
    std::byte* half(size_t index) const { return memory.get() + index * kHalfBytes; }
  };

  // The half is free again once its copies have run.
  void turnOver() {
    check(cudaEventRecord(up_.copied[filling_].get(), stream_), "upload");
    filling_ = 1 - filling_;
    used_ = 0;
    check(cudaEventSynchronize(up_.copied[filling_].get()), "upload");
  }

  cudaStream_t stream_;
  Halves up_, down_;
  size_t filling_ = 0, used_ = 0;  // of up_: the half that uploads go to, and how full it is
};

}  // namespace revnet::cuda
