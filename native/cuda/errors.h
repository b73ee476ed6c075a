// Errors of the CUDA runtime as this project's own.
#pragma once

#include <string>

#include "core/error.h"

namespace revnet::cuda {

// Whether the error has destroyed the device's context: every later call fails with it, until the process ends.
template <class Status>
bool isSticky(Status status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable: return true;
    default: return false;
  }
}

// Throws Error ERR_CUDA (ERR_OUT_OF_MEMORY where that is it) with CUDA's name and description of what went wrong while
// `action`. `Status` is cudaError_t.
template <class Status>
void check(Status status, const char* action) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky is reported once
  std::string message = std::string(action) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status);
  if (isSticky(status)) message += "; this device's networks are lost, and the process has to be started again to use it";
  throw Error(status == cudaErrorMemoryAllocation ? "ERR_OUT_OF_MEMORY" : "ERR_CUDA", message);
}

}  // namespace revnet::cuda
