// Carves an op's scratch out of the shared workspace. The same layout code, run on a null base, says how much is needed.
#pragma once

#include <cstddef>

#include "backend.h"

namespace revnet {

class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  // Undefined contents, aligned to kAlignment.
  template <class T>
  T* take(size_t count) {
    std::byte* here = base_ ? base_ + used_ : nullptr;
    used_ += alignUp(count * sizeof(T));
    return reinterpret_cast<T*>(here);
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

// The bytes that Layout(arguments..., carver) takes.
template <class Layout, class... Arguments>
size_t carvedBytes(const Arguments&... arguments) {
  Carver carver(nullptr);
  const Layout layout(arguments..., carver);
  return carver.used();
}

}  // namespace revnet
