// Numbers on their way in and out, memory as it is counted, and errors that leave the session as it was.
#include "core/session.h"

#include <cmath>
#include <limits>

#include "check.h"

using namespace revnet;

namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Ints = std::vector<int32_t>;
using Bytes = std::vector<uint8_t>;

BufferSpec buffer(ElementType type, int64_t elements) { return {"b", type, elements, Category::Data}; }

std::vector<std::unique_ptr<Session>> sessions() {
  std::vector<std::unique_ptr<Session>> all;
  all.push_back(std::make_unique<Session>(makeReferenceBackend()));
  all.push_back(std::make_unique<Session>(makeCpuBackend(2, "auto")));
  return all;
}

}  // namespace

TEST(sessionConvertsReals) {
  for (const auto& session : sessions()) {
    const size_t id = session->addBuffer(buffer(ElementType::Real, 3));
    const bool isDouble = session->backend().elementBytes(ElementType::Real) == 8;
    session->write(id, Floats{1.5f, -2, 0.1f});
    CHECK(session->read(id) == (isDouble ? HostArray(Doubles{1.5, -2, 0.1f}) : HostArray(Floats{1.5f, -2, 0.1f})));
    session->write(id, Doubles{1.5, -2, 0.1});
    CHECK(session->read(id) == (isDouble ? HostArray(Doubles{1.5, -2, 0.1}) : HostArray(Floats{1.5f, -2, 0.1f})));
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "expected 3 values, got 2", session->write(id, Floats{1, 2}));
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "Float32Array or Float64Array", session->write(id, Ints{1, 2, 3}));
  }
}

TEST(sessionConvertsFixedPoint) {
  for (const auto& session : sessions()) {
    const size_t id = session->addBuffer(buffer(ElementType::Fixed, 4));
    const double step = std::ldexp(1.0, -session->backend().fractionBits());
    // Whole steps come back as they went, up to the ends of the range.
    const Doubles exact = {0, -511.5, 512 - step, 3 * step};
    session->write(id, exact);
    CHECK(session->read(id) == HostArray(exact));
    // Others are rounded to the nearest step, ties to even.
    session->write(id, Doubles{0.5 * step, 1.5 * step, -0.5 * step, 0.75 * step});
    CHECK(session->read(id) == HostArray(Doubles{0, 2 * step, 0, step}));
    for (const double outside : {512.0, -512.5, std::numeric_limits<double>::infinity(), std::nan("")})
      CHECK_THROWS("ERR_INVALID_ARGUMENT", "fixed-point", session->write(id, Doubles{0, 0, 0, outside}));
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "Float64Array", session->write(id, Floats{0, 0, 0, 0}));
  }
}

TEST(sessionKeepsIndicesAndBytes) {
  for (const auto& session : sessions()) {
    const size_t index = session->addBuffer(buffer(ElementType::Index, 2));
    const size_t byte = session->addBuffer(buffer(ElementType::Byte, 2));
    const Ints ints = {std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()};
    session->write(index, ints);
    CHECK(session->read(index) == HostArray(ints));
    session->write(byte, Bytes{0, 255});
    CHECK(session->read(byte) == HostArray(Bytes{0, 255}));
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "Int32Array", session->write(index, Bytes{1, 2}));
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "Uint8Array", session->write(byte, Ints{1, 2}));
  }
}

TEST(sessionViewsShareMemory) {
  for (const auto& session : sessions()) {
    const size_t whole = session->addBuffer(buffer(ElementType::Index, 5));
    BufferSpec part = buffer(ElementType::Index, 3);
    part.parent = static_cast<int32_t>(whole);
    part.offset = 1;
    const size_t view = session->addBuffer(part);
    part = buffer(ElementType::Index, 1);
    part.parent = static_cast<int32_t>(view);
    part.offset = 2;
    const size_t viewOfView = session->addBuffer(part);
    session->write(whole, Ints{0, 1, 2, 3, 4});
    CHECK(session->read(view) == HostArray(Ints{1, 2, 3}));
    session->write(viewOfView, Ints{9});
    CHECK(session->read(whole) == HostArray(Ints{0, 1, 2, 9, 4}));
  }
}

TEST(sessionCountsMemory) {
  for (const auto& session : sessions()) {
    const size_t bytes = session->backend().elementBytes(ElementType::Real);
    session->addBuffer(buffer(ElementType::Real, 1));
    CHECK_EQUAL(session->allocated().total(), kAlignment);
    CHECK_THROWS("ERR_OUT_OF_MEMORY", "", session->addBuffer(buffer(ElementType::Real, int64_t{1} << 40)));
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "elements", session->addBuffer(buffer(ElementType::Real, 0)));
    CHECK_EQUAL(session->allocated().total(), kAlignment);
    // A refused buffer takes no number.
    const size_t id = session->addBuffer(buffer(ElementType::Real, 1000));
    CHECK_EQUAL(id, size_t{1});
    CHECK_EQUAL(session->allocated().total(), kAlignment + alignUp(1000 * bytes));
    CHECK(session->read(id) == (bytes == 8 ? HostArray(Doubles(1000)) : HostArray(Floats(1000))));
  }
}

TEST(sessionRefusesRunsThatItCannotDo) {
  const std::atomic<bool> cancelled{false};
  for (const auto& session : sessions()) {
    const size_t x = session->addBuffer(buffer(ElementType::Real, 2));
    BufferSpec local = buffer(ElementType::Real, 2), unused = local;
    unused.pinned = true;
    const auto id = static_cast<int32_t>(x);
    const size_t program = session->addProgram({local, unused}, {Copy{2, {id}, {id + 1}}, Copy{2, {id + 1}, {id}}});
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "no program 1", session->run(1, {}, {}, cancelled));
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "no buffer 3", session->run(program, {}, {3}, cancelled));
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "not pinned", session->run(program, {}, {x + 1}, cancelled));
    const HostArray before = session->read(x);
    CHECK_THROWS("ERR_INVALID_ARGUMENT", "expected 2 values", session->run(program, {{x, Floats{1}}}, {}, cancelled));
    CHECK(session->read(x) == before);
    // A pinned buffer has memory even where no op uses it.
    CHECK_EQUAL(session->run(program, {{x, Floats{1, 2}}}, {x, x + 2}, cancelled).size(), size_t{2});
  }
}
