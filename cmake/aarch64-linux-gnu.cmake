# Toolchain file: builds for arm64 Linux on another machine, with the cross compiler of Debian's g++-aarch64-linux-gnu, or with another one
# that REVNET_ARM64_CXX names (clang++, which then takes that package's libraries).
#   node scripts/build.js arm64
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
if(DEFINED ENV{REVNET_ARM64_CXX})
  set(CMAKE_CXX_COMPILER "$ENV{REVNET_ARM64_CXX}")
endif()
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-gnu) # of Clang alone
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
