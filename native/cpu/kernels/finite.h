// An op's `notFinite` flag, collected from the tasks of an op.
#pragma once

#include <atomic>
#include <cmath>

#include "core/backend.h"

namespace revnet::REVNET_ISA {

// False for NaN too. One comparison, so loops around it are still vectorised.
inline bool isFinite(float value) { return std::abs(value) <= kLargestValue; }

class NotFinite {
 public:
  // Any thread. `finite`: of all that a task wrote.
  void note(bool finite) {
    if (!finite) found_.store(true, std::memory_order_relaxed);
  }
  // Once the tasks have ended. flag [1]: set to 1 or left; optional.
  void write(const Memory& memory, Operand flag) const {
    if (flag && found_.load(std::memory_order_relaxed)) *memory.at<int32_t>(flag) = 1;
  }

 private:
  std::atomic<bool> found_{false};
};

}  // namespace revnet::REVNET_ISA
