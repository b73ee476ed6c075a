// Takes the place of CUDA under native/cuda/device.h, whose names, and what they promise, these are. See README.md.
#pragma once

#include "emulation/block.h"
#include "emulation/runtime_api.h"
#include "emulation/types.h"
// It names what is declared above.
#include <bit>
#include <cmath>
#include <limits>
#include <tuple>

inline constexpr uint3& threadIdx = revnet::emulation::currentThread;
inline constexpr uint3& blockIdx = revnet::emulation::currentBlock;
inline constexpr dim3& blockDim = revnet::emulation::currentBlockDim;
inline constexpr dim3& gridDim = revnet::emulation::currentGridDim;

namespace revnet::emulation {
cudaError_t enqueueLaunch(cudaStream_t stream, Launch launch);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* configuration, void (*kernel)(Parameters...), Arguments&&... arguments) {
  // By value, as CUDA passes them.
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  revnet::emulation::Launch launch;
  launch.body = [kernel, values] { std::apply(kernel, values); };
  launch.kernel = reinterpret_cast<const void*>(kernel);
  launch.grid = configuration->gridDim;
  launch.threads = static_cast<int>(configuration->blockDim.x);
  launch.sharedBytes = configuration->dynamicSmemBytes;
  launch.early = false;
  for (unsigned i = 0; i < configuration->numAttrs; ++i)
    if (configuration->attrs[i].id == cudaLaunchAttributeProgrammaticStreamSerialization)
      launch.early = configuration->attrs[i].val.programmaticStreamSerializationAllowed != 0;
  return revnet::emulation::enqueueLaunch(configuration->stream, std::move(launch));
}

namespace revnet::cuda {

inline std::byte* sharedMemory() { return emulation::sharedMemoryOfBlock(); }

inline void waitForPrevious(const emulation::Where& where = emulation::Where::current()) { emulation::waitForPrevious(where); }

// ---- Barriers and exchange ------------------------------------------------------------------------------------------------

inline void syncBlock(const emulation::Where& where = emulation::Where::current()) { emulation::blockBarrier(where); }
inline void syncWarp(const emulation::Where& where = emulation::Where::current()) {
  emulation::warpCollective("syncWarp", emulation::evaluateNothing, {}, where);
}
template <class T>
T shuffleXor(T value, int lanes, const emulation::Where& where = emulation::Where::current()) {
  T result;
  emulation::LaneOperands operands;
  operands.input = &value;
  operands.output = &result;
  operands.bytes = sizeof(T);
  operands.lanes = lanes;
  emulation::warpCollective("shuffleXor", emulation::evaluateShuffle, operands, where);
  return result;
}

inline int opaque(int value) { return value; }
inline void fence() {}
inline unsigned atomicIncrement(unsigned* counter, unsigned last) {
  const unsigned before = *counter;
  *counter = before >= last ? 0 : before + 1;
  return before;
}
inline void atomicAddCount(int* counter, int count) {
  *counter = static_cast<int>(static_cast<unsigned>(*counter) + static_cast<unsigned>(count));
}
inline float loadFresh(const float* address) { return *address; }
inline float2 loadFresh(const float2* address) { return *address; }
inline uint32_t loadWhere(bool wanted, const uint32_t* words, int64_t at) { return wanted ? words[at] : 0; }
inline uint4 loadFourWhere(bool wanted, const uint32_t* words, int64_t at) {
  return wanted ? *reinterpret_cast<const uint4*>(words + at) : uint4{};
}

inline uint32_t loadHalfWhere(bool wanted, const uint16_t* halves, int64_t at) { return wanted ? halves[at] : 0u; }
inline uint2 loadFourHalvesWhere(bool wanted, const uint16_t* halves, int64_t at) {
  return wanted ? *reinterpret_cast<const uint2*>(halves + at) : uint2{};
}

// ---- Asynchronous copies --------------------------------------------------------------------------------------------------

inline void copyAsync16(void* shared, const void* global, const emulation::Where& where = emulation::Where::current()) {
  emulation::copyAsync(shared, global, where);
}
inline void copyAsyncCommit() { emulation::copyAsyncClose(); }
template <int pending>
void copyAsyncWait() {
  emulation::copyAsyncWaitFor(pending);
}

// ---- Matrix instructions --------------------------------------------------------------------------------------------------

inline emulation::LaneOperands matrixRow(uint32_t (&r)[4], const void* row, const char* name, const emulation::Where& where) {
  emulation::checkShared(row, 16, name, where);
  emulation::LaneOperands operands;
  operands.output = r;
  std::memcpy(operands.words, row, 16);
  return operands;
}
inline void loadMatrices(uint32_t (&r)[4], const void* row, const emulation::Where& where = emulation::Where::current()) {
  emulation::warpCollective("loadMatrices", emulation::evaluateLoadMatrices, matrixRow(r, row, "loadMatrices", where), where);
}
inline void loadMatricesTransposed(uint32_t (&r)[4], const void* row, const emulation::Where& where = emulation::Where::current()) {
  emulation::warpCollective("loadMatricesTransposed", emulation::evaluateLoadMatricesTransposed,
                            matrixRow(r, row, "loadMatricesTransposed", where), where);
}

inline emulation::LaneOperands matrixOperands(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulation::LaneOperands operands;
  operands.output = d;
  for (int i = 0; i < 4; ++i) operands.words[i] = a[i];
  operands.words[4] = b0;
  operands.words[5] = b1;
  return operands;
}
inline void multiplyTf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         const emulation::Where& where = emulation::Where::current()) {
  emulation::warpCollective("multiplyTf32", emulation::evaluateMultiplyTf32, matrixOperands(d, a, b0, b1), where);
}
inline void multiplyBfloat16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                             const emulation::Where& where = emulation::Where::current()) {
  emulation::warpCollective("multiplyBfloat16", emulation::evaluateMultiplyBfloat16, matrixOperands(d, a, b0, b1), where);
}

inline int logOf(int power) { return std::countr_zero(static_cast<unsigned>(power)); }

// ---- Conversion -----------------------------------------------------------------------------------------------------------

inline uint32_t toTf32(float value) {
  const uint32_t bits = __float_as_uint(value);
  if (std::isnan(value)) return 0x7FFFE000u;
  if (std::isinf(value)) return bits;
  return (bits + 0x1000u) & 0xFFFFE000u;
}
inline uint32_t toBfloat16Pair(float low, float high) {
  const auto round = [](float value) -> uint32_t {
    const uint32_t bits = __float_as_uint(value);
    if (std::isnan(value)) return 0x7FFFu;
    return (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  };
  return round(high) << 16 | round(low);
}
inline uint32_t lowAsFloat(uint32_t pair) { return pair << 16; }
inline uint32_t highAsFloat(uint32_t pair) { return pair & 0xFFFF0000u; }
inline float asFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float asFloat(int bits) { return std::bit_cast<float>(bits); }
inline int asInt(float value) { return std::bit_cast<int>(value); }
inline float maxNan(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<float>::quiet_NaN();
  return a > b ? a : b;
}
inline int roundToInt(float value) {
  if (std::isnan(value)) return 0;
  if (value >= 2147483648.0f) return std::numeric_limits<int>::max();
  if (value < -2147483648.0f) return std::numeric_limits<int>::min();
  return static_cast<int>(std::nearbyint(value));
}

}  // namespace revnet::cuda
