// Bytes: weights read once (4 bytes) and written once (4, or 2 as bfloat16) for each direction; norms 20 bytes read and 16 written
// a channel. Launch: jobs in y; up to 64 blocks of 256 threads each in x.
#include <algorithm>
#include <utility>

#include "cuda/prepare.cuh"

namespace revnet::cuda {
namespace {

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
      const int row = element / chunk;
      const int output = rowsOfInputs ? row / 16 * 16 + weightRowChannel(row % 16) : element % columns;
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

__global__ void __launch_bounds__(kThreads) prepareKernel(const PrepareJob* jobs) {
  waitForPrevious();
  const PrepareJob job = jobs[blockIdx.y];
  if (job.norm == nullptr) return packWeights(job);
  for (int channel = static_cast<int>(blockIdx.x * kThreads + threadIdx.x); channel < job.arguments.c;
       channel += static_cast<int>(gridDim.x) * kThreads)
    job.norm[channel] = channelNorm(job.arguments, channel, job.step);
}

#endif

// ---- What ops want -------------------------------------------------------------------------------------------------------------

// The bytes that an op writes, in device memory.
struct Range {
  const std::byte *first, *last;
  bool overlaps(const Range& other) const { return first < other.last && other.first < last; }
};

// Visits a record's operands for those ranges.
struct WrittenRanges {
  const Memory& memory;
  std::vector<Range>& ranges;

  template <class T>
  void number(const char*, T&) {}
  template <class T>
  void count(const char*, T&) {}
  void dimension(const char*, int&, int = 0) {}
  void flag(const char*, bool&) {}
  void convolution(const char*, Convolution&) {}
  void sameType(Operand, Operand) {}
  int64_t split(int64_t elements, int, size_t parts) const { return elements / static_cast<int64_t>(parts); }
  void operand(const char*, Operand& operand, Access access, Types, int64_t elements) {
    if (!operand || access == Access::Read) return;
    const auto* const first = memory.at<const std::byte>(operand);
    ranges.push_back({first, first + elements * static_cast<int64_t>(memory.bytesOf(operand))});
  }
  void optional(const char* name, Operand& operand, Access access, Types types, int64_t elements) {
    this->operand(name, operand, access, types, elements);
  }
  template <class Elements>
  void operands(const char* name, std::vector<Operand>& list, Access access, Types types, Elements elements) {
    for (size_t i = 0; i < list.size(); ++i) operand(name, list[i], access, types, elements(i));
  }
  template <class T, class Each>
  void list(const char*, std::vector<T>& entries, Each each) {
    for (size_t i = 0; i < entries.size(); ++i) each(entries[i], i);
  }
};

std::vector<Range> writtenBy(Op op, const Memory& memory) {
  std::vector<Range> ranges;
  WrittenRanges visitor{memory, ranges};
  std::visit([&](auto& record) { record.visit(visitor); }, op);
  return ranges;
}

}  // namespace

PreparedProgram::PreparedProgram(const std::vector<Op>& ops, const std::vector<ElementType>& types, Precision precision)
    : types_(types), precision_(precision) {
  uses_.reserve(ops.size());
  for (const Op& op : ops) addUses(op);
}

void PreparedProgram::addUses(const Op& op) {
  OpUses uses;
  const auto forward = [&](Operand weight, const Convolution& convolution) {
    useWeights(uses, weight, planForward(convolution, precision_).layout);
  };
  const auto backward = [&](Operand weight, const Convolution& convolution) {
    useWeights(uses, weight, planBackwardData(convolution, precision_).layout);
  };
  enum Passes { Forward = 1, Backward = 2 };
  // `makesFirst`, `makesInner`: whether the op makes the norm of the first layer, and those of the others.
  const auto function = [&](const ResidualFunction& f, Operand x, const Hidden& hidden, int passes, bool makesFirst,
                            bool makesInner) {
    for (size_t i = 0; i < f.layers.size(); ++i) {
      const auto& [convolution, norm, weight] = f.layers[i];
      if (passes & Forward) forward(weight, convolution);
      if (passes & Backward) backward(weight, convolution);
      if (norm) useNorm(uses, norm, i == 0 ? x : hidden[i - 1], convolution.c, i == 0 ? makesFirst : makesInner);
    }
  };
  const auto writes = [&](Operand statistics, Operand y) {
    uses.statistics = statistics;
    uses.y = y;
  };
  if (const auto* conv = std::get_if<ConvolutionForward>(&op)) {
    forward(conv->weight, conv->convolution);
    if (conv->norm) useNorm(uses, conv->norm, conv->x, conv->convolution.c, false);
    writes(conv->statistics, conv->y);
  } else if (const auto* data = std::get_if<ConvolutionBackwardData>(&op)) {
    backward(data->weight, data->convolution);
  } else if (const auto* weights = std::get_if<ConvolutionBackwardWeights>(&op)) {
    if (weights->norm) useNorm(uses, weights->norm, weights->x, weights->convolution.c, false);
  } else if (const auto* residual = std::get_if<ResidualForward>(&op)) {
    function(residual->function, residual->x, residual->hidden, Forward, false, residual->computeStatistics);
    writes(residual->statistics, residual->y);
  } else if (const auto* gradient = std::get_if<ResidualBackward>(&op)) {
    function(gradient->function, gradient->x, gradient->hidden, Backward, false, false);
  } else if (const auto* block = std::get_if<ReversibleForward>(&op)) {
    const bool makes = block->computeStatistics;
    function(block->f, block->stream2, block->hidden, Forward, false, makes);
    function(block->g, block->stream1, block->hidden, Forward, makes, makes);
    writes(block->statistics2, block->stream2);
  } else if (const auto* inverse = std::get_if<ReversibleInverse>(&op)) {
    function(inverse->f, inverse->stream2, inverse->hidden, Forward, false, false);
    function(inverse->g, inverse->stream1, inverse->hidden, Forward, false, false);
  } else if (const auto* reverse = std::get_if<ReversibleBackward>(&op)) {
    function(reverse->f, reverse->stream2, reverse->hidden, Forward | Backward, false, false);
    function(reverse->g, reverse->stream1, reverse->hidden, Forward | Backward, false, false);
  }
  uses_.push_back(std::move(uses));
}

void PreparedProgram::use(OpUses& uses, size_t found, const Item& item, size_t bytes, bool made) {
  if (found == kNone) {
    found = items_.size();
    items_.push_back(item);
    items_.back().offset = bytes_;
    bytes_ += alignUp(bytes);
  }
  uses.uses.push_back({found, made});
}

void PreparedProgram::useWeights(OpUses& uses, Operand weight, const WeightLayout& layout) {
  Item item;
  item.weight = weight;
  item.layout = layout;
  const size_t elementBytes = precision_ == Precision::Bfloat16 ? 2 : 4;
  use(uses, findWeights(weight, layout), item, static_cast<size_t>(layout.elements()) * elementBytes, false);
}

void PreparedProgram::useNorm(OpUses& uses, const Norm& norm, Operand x, int c, bool made) {
  Item item;
  item.norm = norm;
  item.fixed = isFixed(x);
  item.c = c;
  use(uses, findNorm(norm, item.fixed), item, static_cast<size_t>(c) * sizeof(ChannelNorm), made);
}

size_t PreparedProgram::findWeights(Operand weight, const WeightLayout& layout) const {
  for (size_t i = 0; i < items_.size(); ++i)
    if (items_[i].weight == weight && items_[i].layout == layout) return i;
  return kNone;
}

size_t PreparedProgram::findNorm(const Norm& norm, bool fixed) const {
  for (size_t i = 0; i < items_.size(); ++i) {
    const Norm& other = items_[i].norm;
    if (other && other.statistics == norm.statistics && other.gamma == norm.gamma && other.beta == norm.beta &&
        other.epsilon == norm.epsilon && items_[i].fixed == fixed)
      return i;
  }
  return kNone;
}

size_t PreparedProgram::findReader(Operand statistics, bool fixed) const {
  for (size_t i = 0; i < items_.size(); ++i)
    if (items_[i].norm && items_[i].norm.statistics == statistics && items_[i].fixed == fixed) return i;
  return kNone;
}

// ---- Where it lies, and when it is made ----------------------------------------------------------------------------------------

void PreparedProgram::place(const std::vector<Op>& ops, const Memory& memory) {
  memory_ = &memory;
  std::vector<std::vector<Range>> written;
  for (const Op& op : ops) written.push_back(writtenBy(op, memory));

  const auto changes = [&](size_t op, const Item& item) {
    const auto overlaps = [&](Operand source, int64_t elements) {
      const auto* const first = memory.at<const std::byte>(source);
      const Range range{first, first + elements * 4};
      return std::any_of(written[op].begin(), written[op].end(), [&](const Range& other) { return other.overlaps(range); });
    };
    if (!item.norm) return overlaps(item.weight, int64_t{item.layout.taps()} * item.layout.inputs * item.layout.outputs);
    return overlaps(item.norm.statistics, 2 * int64_t{item.c}) || overlaps(item.norm.gamma, item.c) ||
           overlaps(item.norm.beta, item.c);
  };
  // Whether a use of the item at some op after `op` finds what is made before `op`: nothing in between changes what it is made of.
  const auto isWanted = [&](size_t index, size_t op) {
    for (size_t i = op; i < ops.size(); ++i) {
      for (const Use& use : uses_[i].uses)
        if (use.item == index) return !use.made;
      if (changes(i, items_[index])) return false;
    }
    return false;
  };

  std::vector<bool> ready(items_.size(), false);
  for (size_t op = 0; op < ops.size(); ++op) {
    const std::vector<Use>& uses = uses_[op].uses;
    if (std::any_of(uses.begin(), uses.end(), [&](const Use& use) { return !use.made && !ready[use.item]; })) {
      const size_t first = jobs_.size();
      for (size_t i = 0; i < items_.size(); ++i) {
        if (ready[i] || !isWanted(i, op)) continue;
        jobs_.push_back(jobOf(items_[i]));
        ready[i] = true;
      }
      launches_.push_back({op, first, jobs_.size()});
    }
    for (size_t i = 0; i < items_.size(); ++i)
      if (ready[i] && changes(op, items_[i])) ready[i] = false;
    for (const Use& use : uses)
      if (use.made) ready[use.item] = true;
    if (!uses_[op].statistics) continue;
    if (const size_t reader = findReader(uses_[op].statistics, isFixed(uses_[op].y)); reader != kNone) ready[reader] = true;
  }
}

PrepareJob PreparedProgram::jobOf(const Item& item) const {
  PrepareJob job;
  if (item.norm) {
    job.arguments = normArguments(item.norm, *memory_, item.c);
    job.norm = reinterpret_cast<ChannelNorm*>(memory_->prepared + item.offset);
    job.step = item.fixed ? kFixedStep : 1.0f;
  } else {
    job.source = memory_->at<const float>(item.weight);
    job.packed = memory_->prepared + item.offset;
    job.layout = item.layout;
    job.precision = precision_;
  }
  return job;
}

const std::byte* PreparedProgram::weights(Operand weight, const WeightLayout& layout) const {
  return memory_->prepared + items_[findWeights(weight, layout)].offset;
}

ChannelNorm* PreparedProgram::norm(const Norm& norm, Operand x) const {
  if (!norm) return nullptr;
  return reinterpret_cast<ChannelNorm*>(memory_->prepared + items_[findNorm(norm, isFixed(x))].offset);
}

StatisticsTarget PreparedProgram::statisticsTarget(Operand statistics, Operand y) const {
  StatisticsTarget target;
  target.statistics = memory_->at<float>(statistics);
  if (!statistics) return target;
  const size_t reader = findReader(statistics, isFixed(y));
  if (reader == kNone) return target;
  target.next = normArguments(items_[reader].norm, *memory_, items_[reader].c);
  target.norm = reinterpret_cast<ChannelNorm*>(memory_->prepared + items_[reader].offset);
  return target;
}

void prepare(cudaStream_t stream, const PrepareJob* jobs, size_t count, const PrepareJob* table) {
  int64_t most = 0;
  for (size_t i = 0; i < count; ++i) most = std::max(most, jobs[i].norm ? jobs[i].arguments.c : jobs[i].layout.elements() / 4);
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>((most + kThreads - 1) / kThreads, 1, 64));
  launch(stream, prepareKernel, dim3(blocks, static_cast<unsigned>(count)), kThreads, 0, table);
}

}  // namespace revnet::cuda
