// Runs the native tests whose names contain one of the arguments; all without arguments. Status 1 if any fails.
// "--shard" I N before them: of these, every Nth from the Ith, so that N processes share the work.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "check.h"

namespace revnet::test {

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

}  // namespace revnet::test

int main(int argc, char** argv) {
  int passed = 0, failed = 0, shard = 0, shards = 1, index = 0;
  if (argc > 3 && std::strcmp(argv[1], "--shard") == 0) {
    shard = std::atoi(argv[2]);
    shards = std::max(1, std::atoi(argv[3]));
    argc -= 3;
    argv += 3;
  }
  for (const auto& test : revnet::test::tests()) {
    const bool asked =
        argc < 2 || std::any_of(argv + 1, argv + argc, [&](const char* part) { return std::strstr(test.name, part); });
    if (!asked || index++ % shards != shard) continue;
    try {
      test.body();
      ++passed;
      std::printf("  ok    %s\n", test.name);
    } catch (const std::exception& error) {
      ++failed;
      std::printf("  FAIL  %s\n        %s\n", test.name, error.what());
    }
    std::fflush(stdout);
  }
  std::printf("native tests: %d passed, %d failed\n", passed, failed);
  return failed > 0 || passed == 0;
}
