// Bytes: weights read once (4 bytes) and written once (4, or 2 as bfloat16) for each direction; norms 20 bytes read and 16 written
// a channel. Launch: jobs in y; up to 64 blocks of 256 threads each in x.
#include "cuda/prepare.cuh"

namespace revnet::cuda {
namespace {

struct Jobs {
  PrepareJob list[kMaxPrepareJobs];
};

constexpr int kThreads = 256;

#if REVNET_KERNEL_CODE

// Element (tap, input, output) of a convolution's weights, in the direction of the layout; zero outside.
__device__ float weightAt(const PrepareJob& job, int tap, int input, int output) {
  const WeightLayout& layout = job.layout;
  if (input >= layout.inputs || output >= layout.outputs) return 0.0f;
  const int c = layout.transposed ? output : input, k = layout.transposed ? input : output;
  const int allC = layout.transposed ? layout.outputs : layout.inputs, allK = layout.transposed ? layout.inputs : layout.outputs;
  return job.source[(static_cast<int64_t>(tap) * allC + c) * allK + k];
}

// Four neighbours of a slab at a time.
__device__ void packWeights(const PrepareJob& job) {
  const WeightLayout& layout = job.layout;
  const int chunk = layout.chunk, columns = layout.columns;
  const bool rowsOfInputs = job.precision != Precision::Float32;
  const int64_t quads = layout.elements() / 4;
  for (int64_t quad = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; quad < quads;
       quad += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int inSlab = static_cast<int>(quad % (chunk * columns / 4)) * 4;
    const int64_t slab = quad / (chunk * columns / 4);
    const int tap = static_cast<int>(slab % layout.taps()), at = static_cast<int>(slab / layout.taps() % layout.chunks());
    const int tile = static_cast<int>(slab / layout.taps() / layout.chunks());
    float v[4];
    for (int i = 0; i < 4; ++i) {
      const int element = inSlab + i;
      const int input = rowsOfInputs ? element % chunk : element / columns;
      const int output = rowsOfInputs ? element / chunk : element % columns;
      v[i] = weightAt(job, tap, at * chunk + input, tile * columns + output);
    }
    if (job.precision == Precision::Bfloat16)
      Bfloat16::store4(job.packed + quad * 8, v);
    else if (job.precision == Precision::Tf32)
      Tf32::store4(job.packed + quad * 16, v);
    else
      Float32::store4(job.packed + quad * 16, v);
  }
}

__global__ void __launch_bounds__(kThreads) prepareKernel(const __grid_constant__ Jobs jobs) {
  const PrepareJob& job = jobs.list[blockIdx.y];
  if (job.norm == nullptr) return packWeights(job);
  for (int channel = static_cast<int>(blockIdx.x * kThreads + threadIdx.x); channel < job.arguments.c;
       channel += static_cast<int>(gridDim.x) * kThreads)
    job.norm[channel] = channelNorm(job.arguments, channel, job.step);
}

#endif

}  // namespace

void Preparation::add(const PrepareJob& job) {
  if (count_ == kMaxPrepareJobs) throw Error("ERR_INTERNAL", "an op prepares more than there is room for");
  jobs_[count_++] = job;
}

const std::byte* Preparation::pack(Operand weight, const WeightLayout& layout, Precision precision, const Memory* memory,
                                   Carver& carver) {
  const size_t bytes = precision == Precision::Bfloat16 ? 2 : 4;
  auto* const packed = carver.take<std::byte>(static_cast<size_t>(layout.elements()) * bytes);
  if (memory) {
    PrepareJob job;
    job.source = memory->at<const float>(weight);
    job.packed = packed;
    job.layout = layout;
    job.precision = precision;
    add(job);
  }
  return packed;
}

ChannelNorm* Preparation::norm(const Norm& norm, Operand x, int c, const Memory* memory, Carver& carver, bool known) {
  if (!norm) return nullptr;
  auto* const to = carver.take<ChannelNorm>(static_cast<size_t>(c));
  if (memory && known) {
    PrepareJob job;
    job.arguments = normArguments(norm, *memory, c);
    job.norm = to;
    job.step = streamAt(*memory, x).step();
    add(job);
  }
  return to;
}

void Preparation::launch(const Context& context) const {
  if (count_ == 0) return;
  Jobs jobs{};
  int64_t most = 0;
  for (int i = 0; i < count_; ++i) {
    jobs.list[i] = jobs_[i];
    most = std::max(most, jobs_[i].norm ? jobs_[i].arguments.c : jobs_[i].layout.elements() / 4);
  }
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>((most + kThreads - 1) / kThreads, 1, 64));
  cuda::launch(context.stream, prepareKernel, dim3(blocks, static_cast<unsigned>(count_)), kThreads, 0, jobs);
}

}  // namespace revnet::cuda
