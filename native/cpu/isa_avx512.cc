// All kernels for processors with AVX-512 (F, BW, DQ, VL).
#define REVNET_ISA avx512
#define REVNET_REGISTERS "cpu/registers/avx512.h"
#include "cpu/kernels/run.h"

namespace revnet {
const CpuKernels kAvx512Kernels{"avx512", avx512::workspaceBytes, avx512::runOp};
}
