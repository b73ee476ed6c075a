# Finds a CUDA toolkit that can build native/cuda, and enables the language. Sets `cuda_absence` where there is none: then the
# addon is built for the CPU alone. With REVNET_CUDA=on that is an error.
#
# REVNET_CUDA_ARCHITECTURES (variable or environment) says for which GPUs, in CMake's notation: "90" is machine code for compute
# capability 9.0 and PTX for later ones. Without it: those of the GPUs of this machine; where there are none, all that count.

set(oldest_cuda 12.0)  # the first with C++20
set(oldest_capability 75)  # the first with ldmatrix

set(architectures_help "GPUs to build for; default: those of this machine")
set(REVNET_CUDA_ARCHITECTURES "" CACHE STRING "${architectures_help}")
if(DEFINED ENV{REVNET_CUDA_ARCHITECTURES}) # holds until the environment says something else
  set(REVNET_CUDA_ARCHITECTURES "$ENV{REVNET_CUDA_ARCHITECTURES}" CACHE STRING "${architectures_help}" FORCE)
endif()

# Turing to Hopper, and PTX for what comes after.
set(all_architectures 75-real 80-real 86-real 89-real 90)

# What to build for this machine's GPUs with `nvcc`, as "80;90"; empty where nvidia-smi finds none that kernels can run on. A GPU
# newer than nvcc gets PTX of the newest that nvcc knows.
function(find_architectures nvcc result)
  find_program(nvidia_smi nvidia-smi)
  set(architectures "")
  if(nvidia_smi)
    # Where the driver does not work it says so on stdout, with version numbers in it.
    execute_process(COMMAND ${nvidia_smi} --query-gpu=compute_cap --format=csv,noheader RESULT_VARIABLE status OUTPUT_VARIABLE output
                    ERROR_QUIET)
    execute_process(COMMAND ${nvcc} --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET)
    string(REGEX MATCHALL "[0-9]+" known "${known}")
    string(REGEX REPLACE "[ \r]*\n" ";" lines "${output}")
    foreach(line IN LISTS lines)
      if(NOT status EQUAL 0 OR NOT line MATCHES "^[0-9]+\\.[0-9]$")
        continue()
      endif()
      string(REPLACE "." "" capability "${line}")
      if(capability LESS oldest_capability)
        continue()
      endif()
      if(NOT known OR capability IN_LIST known)
        list(APPEND architectures ${capability})
        continue()
      endif()
      set(newest ${oldest_capability})
      foreach(architecture IN LISTS known)
        if(architecture GREATER newest AND architecture LESS capability)
          set(newest ${architecture})
        endif()
      endforeach()
      list(APPEND architectures ${newest}-virtual)
    endforeach()
    list(REMOVE_DUPLICATES architectures)
  endif()
  set(${result} "${architectures}" PARENT_SCOPE)
endfunction()

# `result`: why `nvcc` cannot compile C++20 with `host` behind it, in one line; empty if it can.
function(try_nvcc nvcc host result)
  set(folder ${CMAKE_BINARY_DIR}/CMakeFiles/try-nvcc)
  file(WRITE ${folder}/try.cu "#include <concepts>\n#include <variant>\n__global__ void kernel() {}\n")
  execute_process(COMMAND ${nvcc} -std=c++20 -ccbin ${host} -c try.cu -o try.o WORKING_DIRECTORY ${folder}
                  RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  set(why "")
  if(NOT status EQUAL 0)
    string(REGEX MATCH "[^\n]*(error|unsupported|not supported|No such)[^\n]*" why "${output}")
    string(REGEX REPLACE "[;\"\\]" " " why "${why} (status ${status})")
    string(STRIP "${why}" why)
  endif()
  set(${result} "${why}" PARENT_SCOPE)
endfunction()

if(NOT CMAKE_CUDA_COMPILER)
  find_program(nvcc nvcc HINTS $ENV{CUDACXX} ENV CUDA_PATH ENV CUDAToolkit_ROOT PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(EXISTS "$ENV{CUDACXX}")
    set(CMAKE_CUDA_COMPILER $ENV{CUDACXX})
  elseif(nvcc)
    set(CMAKE_CUDA_COMPILER ${nvcc})
  else()
    set(cuda_absence "no CUDA toolkit found (looked at CUDACXX, CUDA_PATH, CUDAToolkit_ROOT, PATH, /usr/local/cuda)")
  endif()
endif()

if(NOT cuda_absence)
  # The host compiler of the rest, so that both halves share one standard library.
  if(NOT CMAKE_CUDA_HOST_COMPILER)
    set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
    if(DEFINED ENV{CUDAHOSTCXX})
      set(CMAKE_CUDA_HOST_COMPILER $ENV{CUDAHOSTCXX})
    endif()
  endif()
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE nvcc_version ERROR_QUIET)
  string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" nvcc_version "${nvcc_version}")
  set(nvcc_version "${CMAKE_MATCH_1}")
  if(nvcc_version VERSION_LESS oldest_cuda)
    set(cuda_absence "${CMAKE_CUDA_COMPILER} is CUDA ${nvcc_version}, and ${oldest_cuda} is the oldest that will do")
  else()
    try_nvcc(${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_HOST_COMPILER} why)
    if(why)
      set(cuda_absence "CUDA ${nvcc_version} (${CMAKE_CUDA_COMPILER}) does not work with ${CMAKE_CUDA_HOST_COMPILER}: ${why}")
      message(WARNING "revnet: ${cuda_absence}\nSet CUDAHOSTCXX to a host compiler that this toolkit supports, or CUDACXX to a "
                      "newer toolkit's nvcc. The addon is being built without CUDA.")
    endif()
  endif()
endif()

if(cuda_absence AND use_cuda STREQUAL "on")
  message(FATAL_ERROR "revnet: REVNET_CUDA=${REVNET_CUDA}, but ${cuda_absence}")
endif()

if(NOT cuda_absence)
  set(CMAKE_CUDA_ARCHITECTURES "${REVNET_CUDA_ARCHITECTURES}")
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    find_architectures(${CMAKE_CUDA_COMPILER} CMAKE_CUDA_ARCHITECTURES)
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${all_architectures})
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  # CMake before 3.26 does not know that nvcc has it.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  # For devices.cu, which tells whether there is code for a GPU.
  list(JOIN CMAKE_CUDA_ARCHITECTURES "," joined)
  set_source_files_properties(native/cuda/devices.cu PROPERTIES COMPILE_DEFINITIONS "REVNET_CUDA_ARCHITECTURES=\"${joined}\"")
endif()
