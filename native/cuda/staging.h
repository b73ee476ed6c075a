// Copies between ordinary host memory and the device by way of pinned memory, which the copy engine reads and writes without
// the processor. Each direction has two halves, so that one is filled or emptied while the other is on its way. What a step gives
// is a few bytes and goes to slots of its own, so that the next step can be started before they have arrived.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>

#include "core/backend.h"
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

  // Enqueues a small copy. Null where it is too large, or too many are under way.
  std::unique_ptr<Download> beginDownload(const void* from, size_t bytes) {
    if (bytes > kSlotBytes) return nullptr;
    for (size_t i = 0; i < kSlots; ++i) {
      Slot& slot = slots_[i];
      if (slot.taken) continue;
      slot.memory = slotMemory_.get() + i * kSlotBytes;
      check(cudaMemcpyAsync(slot.memory, from, bytes, cudaMemcpyDeviceToHost, stream_), "download");
      check(cudaEventRecord(slot.copied.get(), stream_), "download");
      return std::make_unique<SmallDownload>(slot);
    }
    return nullptr;
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
  static constexpr size_t kSlots = 8, kSlotBytes = 4096;

  struct Slot {
    Event copied = makeEvent();
    std::byte* memory = nullptr;  // [kSlotBytes]
    bool taken = false;
  };

  // Copies of one stream run in their order: a slot that was given back early is written again only after its first copy.
  class SmallDownload final : public Download {
   public:
    explicit SmallDownload(Slot& slot) : slot_(slot) { slot_.taken = true; }
    ~SmallDownload() override { slot_.taken = false; }
    bool ready() override { return cudaEventQuery(slot_.copied.get()) != cudaErrorNotReady; }
    const std::byte* wait() override {
      check(cudaEventSynchronize(slot_.copied.get()), "program");
      return slot_.memory;
    }

   private:
    Slot& slot_;
  };

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
  PinnedMemory slotMemory_ = makePinnedMemory(kSlots * kSlotBytes);
  std::array<Slot, kSlots> slots_;
  size_t filling_ = 0, used_ = 0;  // of up_: the half that uploads go to, and how full it is
};

}  // namespace revnet::cuda
