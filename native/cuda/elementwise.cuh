// Passes over [pixels][c] tensors: how threads lie over them, 16-byte accesses to them, and sums within a block.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/norm.cuh"

namespace revnet::cuda {

constexpr int kThreads = 256;

inline unsigned blocksFor(int64_t items, int64_t perBlock) { return static_cast<unsigned>((items + perBlock - 1) / perBlock); }

// Buffers are aligned, views of them need not be. Null counts as aligned.
template <class... Pointers>
bool isAligned(const Pointers*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// Calls body(narrow), a constant.
template <class Body>
void withNarrow(bool narrow, const Body& body) {
  if (narrow)
    body(std::true_type{});
  else
    body(std::false_type{});
}

// Calls body(width), a constant: how many neighbouring elements one access moves.
template <class Body>
void withWidth(bool four, const Body& body) {
  if (four)
    body(std::integral_constant<int, 4>{});
  else
    body(std::integral_constant<int, 1>{});
}

// How the kThreads threads of a block lie over a [pixels][c] tensor: `lanes` side by side, each with `width` neighbouring channels
// that it keeps, and `rows` pixels below one another, so that what a channel needs is computed once a thread. gridDim.y groups
// of lanes * width channels make up all c.
struct Tiling {
  int64_t pixels;
  int c, lanes, rows, groups;

  Tiling(int64_t pixels, int c, int width) : pixels(pixels), c(c) {
    constexpr int kMostLanes = 64;  // 1 KiB of a pixel: enough to use whole DRAM bursts, and rows are left for reuse
    const int vectors = c / width;
    groups = (vectors + kMostLanes - 1) / kMostLanes;
    lanes = (vectors + groups - 1) / groups;
    rows = kThreads / lanes;
  }
  dim3 grid(int64_t pixelsPerBlock) const { return dim3(blocksFor(pixels, pixelsPerBlock), static_cast<unsigned>(groups)); }
};

// The tensors of an op whose c channels are split evenly: one [pixels][c], or two [pixels][c / 2].
struct Halves {
  StreamPointer first, second;  // of one type; second null: there is one
  int c;                        // of each

  bool takesVectors() const { return c % 4 == 0 && first.aligned && second.aligned; }
};

inline Halves halvesAt(const Memory& memory, const std::vector<Operand>& operands, int c) {
  const int count = static_cast<int>(operands.size());
  return {streamAt(memory, operands[0]), streamAt(memory, count > 1 ? operands[1] : Operand{}), c / count};
}

#if defined(__CUDACC__) || defined(REVNET_EMULATED)

// Moves as one access: of 16 bytes if four.
template <int width>
struct alignas(4 * width) Vector {
  float v[width];
};

template <int width>
__device__ Vector<width> load(const float* from) {
  return *reinterpret_cast<const Vector<width>*>(from);
}
template <int width>
__device__ void store(float* to, const Vector<width>& value) {
  *reinterpret_cast<Vector<width>*>(to) = value;
}
// The same where only `count` elements are left; the others read as zeros.
template <int width>
__device__ Vector<width> loadUpTo(int64_t count, const float* from) {
  if (count >= width) return load<width>(from);
  Vector<width> result{};
  for (int i = 0; i < width; ++i)
    if (i < count) result.v[i] = from[i];
  return result;
}
template <int width>
__device__ void storeUpTo(int64_t count, float* to, const Vector<width>& value) {
  if (count >= width) return store(to, value);
  for (int i = 0; i < width; ++i)
    if (i < count) to[i] = value.v[i];
}

// Of floats, or (kNarrow) bfloat16: real tensors of either kind.
template <int width, bool kNarrow>
__device__ Vector<width> loadReal(const void* data, int64_t index) {
  if constexpr (!kNarrow) {
    return load<width>(static_cast<const float*>(data) + index);
  } else if constexpr (width == 4) {
    const uint2 v = *reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(data) + index);
    return {{asFloat(lowAsFloat(v.x)), asFloat(highAsFloat(v.x)), asFloat(lowAsFloat(v.y)), asFloat(highAsFloat(v.y))}};
  } else {
    return {{asFloat(lowAsFloat(static_cast<const uint16_t*>(data)[index]))}};
  }
}
// Rounds where the tensor is narrow.
template <int width>
__device__ void storeReal(const StreamPointer& to, int64_t index, const Vector<width>& value) {
  if (!to.narrow) return store(static_cast<float*>(to.data) + index, value);
  auto* const halves = static_cast<uint16_t*>(to.data) + index;
  if constexpr (width == 4)
    *reinterpret_cast<uint2*>(halves) = make_uint2(toBfloat16Pair(value.v[0], value.v[1]), toBfloat16Pair(value.v[2], value.v[3]));
  else
    *halves = static_cast<uint16_t>(toBfloat16Pair(value.v[0], 0.0f));
}

// As stored, without the stream's step.
template <int width>
__device__ Vector<width> load(const StreamPointer& stream, int64_t index) {
  if constexpr (width == 4) {
    const auto [x, y, z, w] = stream.stored4(index);
    return {{x, y, z, w}};
  } else {
    return {{stream.stored(index)}};
  }
}

// Rounds to the stream's step where it is fixed point; `left` grows by the elements that it cannot hold.
template <int width>
__device__ void store(const StreamPointer& stream, int64_t index, const Vector<width>& value, int& left) {
  if (!stream.fixed) {
    store(static_cast<float*>(stream.data) + index, value);
    return;
  }
  int q[width];
  for (int i = 0; i < width; ++i) q[i] = addFixed(0, value.v[i], 1, left);
  int* to = static_cast<int*>(stream.data) + index;
  if constexpr (width == 4)
    *reinterpret_cast<int4*>(to) = make_int4(q[0], q[1], q[2], q[3]);
  else
    *to = q[0];
}

// This thread's place in a Tiling.
struct Place {
  int row, channel;
  bool active;

  __device__ Place(const Tiling& tiling, int width) {
    const int thread = static_cast<int>(threadIdx.x);
    row = thread / tiling.lanes;
    channel = (static_cast<int>(blockIdx.y) * tiling.lanes + thread % tiling.lanes) * width;
    active = row < tiling.rows && channel < tiling.c;
  }
};

// The one of two halves that holds a channel of the whole, and the channel there.
struct Half {
  StreamPointer stream;
  int c, channel;

  __device__ Half(const Halves& halves, int ofWhole) : c(halves.c) {
    const bool isSecond = ofWhole >= c;
    stream = isSecond ? halves.second : halves.first;
    channel = isSecond ? ofWhole - c : ofWhole;
  }
  __device__ int64_t at(int64_t pixel) const { return pixel * c + channel; }
};

// Adds the block's elements that left the fixed-point range; `counter` may be null. All threads of the block take part.
__device__ inline void countLeft(int* counter, int left) {
  if (counter == nullptr) return;
  for (int lanes = 1; lanes < kWarp; lanes *= 2) left += shuffleXor(left, lanes);
  if (threadIdx.x % kWarp == 0 && left != 0) atomicAddCount(counter, left);
}

// flag [1]: set to 1 where `value` is NaN, infinite or beyond kLargestValue; or null. All threads write the same, so their order
// does not matter.
__device__ inline void checkFinite(float value, int* flag) {
  if (flag != nullptr && !(fabsf(value) <= kLargestValue)) *flag = 1;
}

// sums[rows][items]: adds all rows into the first one, in a fixed order. Shared memory, complete but for a barrier.
__device__ inline void sumRows(float* sums, int rows, int items) {
  syncBlock();
  while (rows > 1) {
    const int kept = (rows + 1) / 2;
    for (int i = static_cast<int>(threadIdx.x); i < (rows - kept) * items; i += static_cast<int>(blockDim.x))
      sums[i] += sums[kept * items + i];
    syncBlock();
    rows = kept;
  }
}

#endif

}  // namespace revnet::cuda
