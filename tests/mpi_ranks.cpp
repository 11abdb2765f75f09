// The tests of the communicator, of sums and of sharded states over MPI, on the ranks that mpirun
// started; tests/mpi_test.py starts them.
//
//   mpirun -np 4 mpi_ranks [gtest flags]
//   mpirun -np 4 mpi_ranks --end=abort|exception|kill|stop    rank 1 ends like that, the others
//   wait
#include "parallel/mpi.h"

#include <csignal>
#include <cstdio>

#include "parallel/communicator_suite.h"
#include "parallel/reduction_suite.h"
#include "parallel/zero1_suite.h"

namespace minke::test {
namespace {

Communicator* all_ranks = nullptr;

struct Mpi {
  static void run(FunctionRef<void(Communicator&)> body) {
    body(*all_ranks);
    all_ranks->barrier();
  }
};
// A communicator of some of the ranks; the other one leaves the test out.
struct MpiOfThree {
  static void run(FunctionRef<void(Communicator&)> body) {
    const auto part = all_ranks->split(all_ranks->rank() < 3 ? 0 : 1, 0);
    if (all_ranks->rank() < 3) body(*part);
    all_ranks->barrier();
  }
};
using Forms = testing::Types<Mpi, MpiOfThree>;
INSTANTIATE_TYPED_TEST_SUITE_P(Mpi, CommunicatorSuite, Forms);
INSTANTIATE_TYPED_TEST_SUITE_P(Mpi, ReductionSuite, Forms);
INSTANTIATE_TYPED_TEST_SUITE_P(Mpi, Zero1Suite, Forms);

// Between the call and test() this thread does not enter MPI; 8 MiB do not go out at once.
TEST(Mpi, MessagesMoveWhileTheRankComputes) {
  Communicator& c = *all_ranks;
  std::vector<int> sent(2 << 20, c.rank()), got(sent.size());
  const int other = c.rank() ^ 1;
  Request receive = c.receive(bytes_of(got), other, 0), send = c.send(bytes_of(sent), other, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  EXPECT_TRUE(receive->test());
  wait(send);
  wait(receive);
  EXPECT_EQ(got.back(), other);
  c.barrier();
}

TEST(Mpi, TheWorldIsOpenedOnce) {
  EXPECT_THROW((void)world(), CommError);
}

TEST(Mpi, SaysItsVersion) {
  EXPECT_NE(mpi_version().find("MPI"), std::string::npos) << mpi_version();
}

void end_badly(Communicator& c, const std::string& how) {
  c.set_timeout(std::chrono::milliseconds(500));
  c.set_progress(5, "experts");
  c.barrier();
  if (c.rank() == 1) {
    if (how == "abort") c.abort("a loss of NaN");
    if (how == "exception") throw ConfigError("no memory for the experts");
    if (how == "kill") std::raise(SIGKILL);
    if (how == "stop") std::raise(SIGSTOP);
  }
  std::vector<int> got(4);
  Request request = c.receive(bytes_of(got), 1, 3);
  wait(request);
}

int run_tests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  // Pieces of 1 MiB: the big messages of the tests take several.
  const auto communicator = world({.piece_bytes = 1 << 20});
  all_ranks = communicator.get();
  if (communicator->rank() > 0) {  // the others' failures are printed, their progress is not
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    struct Failures : testing::EmptyTestEventListener {
      void OnTestPartResult(const testing::TestPartResult& result) override {
        if (result.failed())
          std::fprintf(stderr, "rank %d: %s:%d: %s\n", all_ranks->rank(), result.file_name(),
                       result.line_number(), result.message());
      }
    };
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new Failures);
  }
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace minke::test

int main(int argc, char** argv) {
  const std::string flag = argc > 1 ? argv[1] : "";
  if (flag.rfind("--end=", 0) != 0) return minke::test::run_tests(argc, argv);
  try {
    minke::run_world([&](minke::Communicator& c) { minke::test::end_badly(c, flag.substr(6)); });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "not reached with several ranks: %s\n", error.what());
  }
  return 0;
}
