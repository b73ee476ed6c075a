# Compiles the CUDA sources with the host compiler against this folder, in place of nvcc: see README.md. Needs Boost.Context
# (Debian: libboost-context-dev). Sets cuda_sources, and emulation_options for what else is written in terms of cuda/device.h.
find_package(Boost REQUIRED COMPONENTS context)

revnet_glob(cuda_sources native/cuda/*.cu)
revnet_glob(emulation_sources test/emulation/*.cc)
# Fused multiply-adds are those that the sources say, as under nvcc with -fmad=false. Uninitialised variables hold a pattern, not
# by chance the right thing. Sanitised and fully optimised at once, the kernels would take minutes to compile.
set(emulation_options -ffp-contract=off -Wno-unknown-pragmas $<IF:$<BOOL:${REVNET_TESTS}>,-O1,-O2>)
# Without the instruction, fmaf is a library call. Nothing that is built here leaves this machine.
include(CheckCXXSourceRuns)
check_cxx_source_runs("int main() { return !__builtin_cpu_supports(\"fma\"); }" REVNET_EMULATION_FMA)
if(REVNET_EMULATION_FMA)
  list(APPEND emulation_options -mfma)
endif()

# `sources`, in C++ and with CUDA as it is emulated.
function(revnet_emulate)
  set_source_files_properties(${ARGN} PROPERTIES COMPILE_DEFINITIONS REVNET_EMULATED INCLUDE_DIRECTORIES ${CMAKE_CURRENT_SOURCE_DIR}/test
                                                 COMPILE_OPTIONS "${emulation_options}")
  foreach(source IN LISTS ARGN)
    if(source MATCHES "\\.cu$")
      set_source_files_properties(${source} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "${emulation_options};-x;c++")
    endif()
  endforeach()
endfunction()
revnet_emulate(${cuda_sources} ${emulation_sources})
list(APPEND cuda_sources ${emulation_sources})
