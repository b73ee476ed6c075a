// The plan: random programs placed without overlap, and with the same results as without a plan.
#include "core/plan.h"

#include <algorithm>
#include <random>

#include "check.h"
#include "core/session.h"

using namespace revnet;

namespace {

BufferSpec real(std::string name, int64_t elements) {
  return {std::move(name), ElementType::Real, elements, Category::Activations};
}

// Chains of copies through locals: op i copies from[i] to to[i]. Sizes are shared, so that there are chains at all.
struct RandomProgram {
  std::vector<BufferSpec> locals;
  std::vector<Op> ops;
  std::vector<std::pair<size_t, size_t>> copies;  // local numbers of x and y

  explicit RandomProgram(std::mt19937& random) {
    const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
    const size_t count = 2 + below(30);
    for (size_t i = 0; i < count; ++i) {
      locals.push_back(real("b" + std::to_string(i), static_cast<int64_t>(1 + below(3) * 37)));
      locals.back().pinned = i == 0 || below(8) == 0;
    }
    std::vector<size_t> written;
    for (size_t i = 0; i < count; ++i)
      if (locals[i].pinned) written.push_back(i);
    for (size_t i = 0; i < 60; ++i) {
      const size_t x = written[below(written.size())], y = below(count);
      if (x == y || locals[x].elements != locals[y].elements) continue;
      written.push_back(y);
      copies.emplace_back(x, y);
      ops.push_back(Copy{locals[x].elements, {static_cast<int32_t>(x)}, {static_cast<int32_t>(y)}});
    }
  }
};

}  // namespace

TEST(planPlacesLiveBuffersApart) {
  const auto backend = makeReferenceBackend();
  std::mt19937 random(1);
  size_t shared = 0;
  for (int round = 0; round < 500; ++round) {
    RandomProgram program(random);
    const Plan plan = planProgram(program.locals, 0, program.ops, *backend);

    // Lifetimes again, from the copies.
    // A program without ops still keeps its pinned buffers apart: they are written and read around it.
    const int count = static_cast<int>(program.copies.size()), last = std::max(0, count - 1);
    std::vector<std::pair<int, int>> lifetimes(program.locals.size(), {-1, -1});
    for (size_t i = 0; i < program.locals.size(); ++i)
      if (program.locals[i].pinned) lifetimes[i] = {0, last};
    for (int op = 0; op < count; ++op)
      for (const size_t id : {program.copies[op].first, program.copies[op].second}) {
        if (lifetimes[id].first < 0) lifetimes[id].first = op;
        lifetimes[id].second = std::max(lifetimes[id].second, op);
      }

    const auto bytes = [&](size_t id) { return alignUp(static_cast<size_t>(program.locals[id].elements) * sizeof(double)); };
    size_t live = 0, all = 0;
    for (int op = 0; op <= last; ++op) {
      size_t now = 0;
      for (size_t id = 0; id < lifetimes.size(); ++id)
        if (lifetimes[id].first >= 0 && lifetimes[id].first <= op && op <= lifetimes[id].second) now += bytes(id);
      live = std::max(live, now);
    }
    for (size_t a = 0; a < lifetimes.size(); ++a) {
      if (lifetimes[a].first < 0) {
        CHECK_EQUAL(plan.offsets[a], Plan::kNotPlanned);
        continue;
      }
      all += bytes(a);
      CHECK(plan.offsets[a] % kAlignment == 0 && plan.offsets[a] + bytes(a) <= plan.arenaBytes);
      for (size_t b = 0; b < a; ++b) {
        if (lifetimes[b].first < 0 || lifetimes[b].first > lifetimes[a].second || lifetimes[a].first > lifetimes[b].second)
          continue;
        CHECK(plan.offsets[a] + bytes(a) <= plan.offsets[b] || plan.offsets[b] + bytes(b) <= plan.offsets[a]);
      }
    }
    CHECK_EQUAL(plan.liveBytes, live);
    CHECK(plan.arenaBytes >= live && plan.arenaBytes <= all);
    shared += plan.arenaBytes < all;
  }
  CHECK(shared > 250);  // the plan does more than to line them up
}

// Every local pinned is every local in memory of its own; the arena is poisoned before each run.
TEST(plannedProgramsComputeWhatUnplannedOnesDo) {
  std::mt19937 random(2);
  const std::atomic<bool> cancelled{false};
  for (int round = 0; round < 200; ++round) {
    RandomProgram program(random);
    std::vector<BufferSpec> apart = program.locals;
    for (BufferSpec& local : apart) local.pinned = true;

    std::vector<Session::Input> inputs;
    std::vector<size_t> outputs;
    for (size_t i = 0; i < program.locals.size(); ++i) {
      if (!program.locals[i].pinned || program.copies.empty()) continue;
      std::vector<double> values(static_cast<size_t>(program.locals[i].elements));
      for (double& value : values) value = std::uniform_real_distribution<double>()(random);
      inputs.push_back({i, values});
      outputs.push_back(i);
    }
    const auto run = [&](const std::vector<BufferSpec>& locals) {
      Session session(makeReferenceBackend(), true);
      return session.run(session.addProgram(locals, program.ops), inputs, outputs, cancelled);
    };
    CHECK(run(program.locals) == run(apart));
  }
}

TEST(planRefusesWhatDoesNotFit) {
  const auto backend = makeReferenceBackend();
  const auto plan = [&](std::vector<BufferSpec> table, Op op) {
    std::vector<Op> ops = {std::move(op)};
    return planProgram(table, 0, ops, *backend);
  };
  BufferSpec input = real("in", 4);
  input.pinned = true;
  CHECK_THROWS("ERR_INVALID_ARGUMENT", "op 0 (copy): y: missing", plan({input}, Copy{4, {0}, {}}));
  CHECK_THROWS("ERR_INVALID_ARGUMENT", "there is no buffer 7", plan({input}, Copy{4, {0}, {7}}));
  CHECK_THROWS("ERR_INVALID_ARGUMENT", "has 4 elements, expected 5", plan({input, real("out", 5)}, Copy{5, {0}, {1}}));
  CHECK_THROWS("ERR_INVALID_ARGUMENT", "is read before it is written", plan({real("a", 4), real("b", 4)}, Copy{4, {0}, {1}}));
  BufferSpec bytes = real("bytes", 4);
  bytes.type = ElementType::Byte;
  CHECK_THROWS("ERR_INVALID_ARGUMENT", "element type byte", plan({input, bytes}, Copy{4, {0}, {1}}));
  BufferSpec fixed = real("fixed", 4);
  fixed.type = ElementType::Fixed;
  CHECK_THROWS("ERR_INVALID_ARGUMENT", "must have the same element type", plan({input, fixed}, Copy{4, {0}, {1}}));
  BufferSpec view = real("view", 4);
  view.parent = 0;
  view.offset = 1;
  CHECK_THROWS("ERR_INVALID_ARGUMENT", "not inside its parent", plan({input, view}, Copy{4, {0}, {1}}));
  view.parent = 1;
  CHECK_THROWS("ERR_INVALID_ARGUMENT", "parent must come before", plan({input, view}, Copy{4, {0}, {1}}));
  CHECK_THROWS("ERR_INVALID_ARGUMENT", "2^40 elements", plan({input, real("huge", int64_t{1} << 60)}, Copy{4, {0}, {1}}));
}
