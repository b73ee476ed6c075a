// What tests of the emulation itself ask of it, beside the environment (README.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace revnet::emulation {

// Starts the devices afresh, as cudaDeviceReset does, with a schedule of this seed.
void restart(uint64_t seed);
// As restart(0), with `devices` devices of `bytes` of memory each.
void restartWith(size_t devices, size_t bytes);
uint64_t seed();

}  // namespace revnet::emulation
