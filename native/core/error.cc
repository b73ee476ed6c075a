#include "error.h"

#include <cmath>
#include <iomanip>
#include <sstream>

namespace revnet {

std::string readableBytes(uint64_t bytes) {
  const bool large = bytes >= uint64_t{1} << 30;
  std::ostringstream text;
  text << std::fixed << std::setprecision(2) << std::ldexp(static_cast<double>(bytes), large ? -30 : -20)
       << (large ? " GiB" : " MiB");
  return text.str();
}

}  // namespace revnet
