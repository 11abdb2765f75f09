// For tests: what every form of the communicator must do. A form has
//   static void run(FunctionRef<void(Communicator&)> body)     on each of its ranks
// and every check holds for any number of ranks.
#pragma once
#include <gtest/gtest.h>

#include <numeric>
#include <thread>
#include <vector>

#include "base/function_ref.h"
#include "parallel/communicator.h"

namespace minke::test {

inline std::span<const std::byte> bytes_of(const std::vector<int>& values) {
  return std::as_bytes(std::span(values));
}
inline std::span<std::byte> bytes_of(std::vector<int>& values) {
  return std::as_writable_bytes(std::span(values));
}
// What rank `from` sends to `to` in these tests: n numbers that differ from all others.
inline std::vector<int> letter(int from, int to, int n) {
  std::vector<int> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), 10000 * from + 1000 * to);
  return values;
}

template <class Form>
struct CommunicatorSuite : testing::Test {};
TYPED_TEST_SUITE_P(CommunicatorSuite);

TYPED_TEST_P(CommunicatorSuite, MessagesOfATagArriveInTheOrderSent) {
  TypeParam::run([](Communicator& c) {
    const int to = (c.rank() + 1) % c.size(), from = (c.rank() + c.size() - 1) % c.size();
    std::vector<std::vector<int>> got(3, std::vector<int>(5)), sent;
    for (int i = 0; i < 3; ++i) sent.push_back(letter(c.rank(), to, 5));
    sent[1][0] = -1;
    std::vector<int> other(1), of_other_tag{c.rank()};
    std::vector<Request> requests;
    // The tag that is sent last is received first.
    requests.push_back(c.receive(bytes_of(other), from, 32767));
    for (auto& g : got) requests.push_back(c.receive(bytes_of(g), from, 0));
    for (const auto& s : sent) requests.push_back(c.send(bytes_of(s), to, 0));
    requests.push_back(c.send(bytes_of(of_other_tag), to, 32767));
    wait_all(requests);
    for (Request& request : requests) EXPECT_TRUE(request->test());
    EXPECT_EQ(other[0], from);
    EXPECT_EQ(got[0], letter(from, c.rank(), 5));
    EXPECT_EQ(got[1][0], -1);
    EXPECT_EQ(got[2], letter(from, c.rank(), 5));
  });
}

TYPED_TEST_P(CommunicatorSuite, TestBecomesTrueWithoutWaiting) {
  TypeParam::run([](Communicator& c) {
    const int to = (c.rank() + 1) % c.size(), from = (c.rank() + c.size() - 1) % c.size();
    std::vector<int> got(100), sent = letter(c.rank(), to, 100);
    Request receive = c.receive(bytes_of(got), from, 1);
    Request send = c.send(bytes_of(sent), to, 1);
    while (!receive->test() || !send->test()) std::this_thread::yield();
    EXPECT_EQ(got, letter(from, c.rank(), 100));
  });
}

// Sizes differ from pair to pair; some are 0.
TYPED_TEST_P(CommunicatorSuite, AllToAllWithSizesOfEachPair) {
  TypeParam::run([](Communicator& c) {
    const auto numbers = [](int from, int to) { return (from + 2 * to) % 3 * 7; };
    std::vector<int> sent, expected;
    std::vector<std::size_t> send_sizes, receive_sizes;
    for (int r = 0; r < c.size(); ++r) {
      const auto mine = letter(c.rank(), r, numbers(c.rank(), r));
      const auto theirs = letter(r, c.rank(), numbers(r, c.rank()));
      sent.insert(sent.end(), mine.begin(), mine.end());
      expected.insert(expected.end(), theirs.begin(), theirs.end());
      send_sizes.push_back(mine.size() * sizeof(int));
      receive_sizes.push_back(theirs.size() * sizeof(int));
    }
    std::vector<int> got(expected.size(), -1);
    Request request = c.all_to_all(bytes_of(sent), send_sizes, bytes_of(got), receive_sizes);
    wait(request);
    EXPECT_EQ(got, expected);
  });
}

TYPED_TEST_P(CommunicatorSuite, SeveralCollectivesUnderWayAtOnce) {
  TypeParam::run([](Communicator& c) {
    const auto n = static_cast<std::size_t>(c.size());
    const std::vector<int> first{c.rank()}, second{c.rank() + 100};
    std::vector<int> all_first(n), all_second(n), from_last{c.rank()};
    std::vector<Request> requests;
    requests.push_back(c.all_gather(bytes_of(first), bytes_of(all_first)));
    requests.push_back(c.broadcast(bytes_of(from_last), c.size() - 1));
    requests.push_back(c.all_gather(bytes_of(second), bytes_of(all_second)));
    std::swap(requests.front(), requests.back());
    wait_all(requests);
    EXPECT_EQ(from_last[0], c.size() - 1);
    for (int r = 0; r < c.size(); ++r) {
      EXPECT_EQ(all_first[static_cast<std::size_t>(r)], r);
      EXPECT_EQ(all_second[static_cast<std::size_t>(r)], r + 100);
    }
  });
}

TYPED_TEST_P(CommunicatorSuite, EmptyBuffersAreMessagesToo) {
  TypeParam::run([](Communicator& c) {
    std::vector<std::size_t> none(static_cast<std::size_t>(c.size()));
    std::vector<Request> requests;
    requests.push_back(c.receive({}, c.rank(), 3));
    requests.push_back(c.send({}, c.rank(), 3));
    requests.push_back(c.all_to_all({}, none, {}, none));
    requests.push_back(c.all_gather({}, {}));
    requests.push_back(c.broadcast({}, 0));
    wait_all(requests);
    Request null;
    wait(null);
  });
}

// Evens and odds, in the reverse order of their ranks; messages of the two do not meet.
TYPED_TEST_P(CommunicatorSuite, SplitOrdersByKeyAndKeepsMessagesApart) {
  TypeParam::run([](Communicator& c) {
    const std::unique_ptr<Communicator> half = c.split(c.rank() % 2, -c.rank());
    const int others = (c.size() + 1 - c.rank() % 2) / 2;
    EXPECT_EQ(half->size(), others);
    EXPECT_EQ(half->rank(), others - 1 - c.rank() / 2);
    const std::vector<int> own{c.rank()};
    std::vector<int> all(static_cast<std::size_t>(half->size()));
    Request request = half->all_gather(bytes_of(own), bytes_of(all));
    wait(request);
    for (int r = 0; r < half->size(); ++r) {
      EXPECT_EQ(all[static_cast<std::size_t>(r)], c.rank() % 2 + 2 * (half->size() - 1 - r));
      EXPECT_EQ(half->host(r), c.host(all[static_cast<std::size_t>(r)]));
    }
    const std::unique_ptr<Communicator> quarter = half->split(half->rank() / 2, 0);
    quarter->barrier();
    EXPECT_LE(quarter->size(), 2);
    c.barrier();
  });
}

TYPED_TEST_P(CommunicatorSuite, BytesForOtherRanksAreCounted) {
  TypeParam::run([](Communicator& c) {
    const auto others = static_cast<std::uint64_t>(c.size() - 1);
    const std::uint64_t before = c.bytes_sent();
    std::vector<int> own(3), all(3 * static_cast<std::size_t>(c.size())), got(3);
    std::vector<Request> requests;
    requests.push_back(c.all_gather(bytes_of(own), bytes_of(all)));
    requests.push_back(c.broadcast(bytes_of(own), 0));
    requests.push_back(c.receive(bytes_of(got), c.rank(), 0));
    requests.push_back(c.send(bytes_of(own), c.rank(), 0));
    wait_all(requests);
    c.barrier();
    EXPECT_EQ(c.bytes_sent() - before, 12 * others * (c.rank() == 0 ? 2 : 1));
  });
}

// 4 MiB to the next rank: more than transports buffer.
TYPED_TEST_P(CommunicatorSuite, BigMessages) {
  TypeParam::run([](Communicator& c) {
    const int to = (c.rank() + 1) % c.size(), from = (c.rank() + c.size() - 1) % c.size();
    std::vector<int> sent(1 << 20, c.rank()), got(sent.size(), -1);
    Request receive = c.receive(bytes_of(got), from, 5), send = c.send(bytes_of(sent), to, 5);
    wait(receive);
    wait(send);
    EXPECT_EQ(got, std::vector<int>(sent.size(), from));
  });
}

template <class F>
std::string comm_error_of(F f) {
  try {
    f();
  } catch (const CommError& error) {
    return error.what();
  }
  return "no error";
}
#define EXPECT_SAYS(text, part) EXPECT_NE(std::string(text).find(part), std::string::npos) << (text)

TYPED_TEST_P(CommunicatorSuite, AReceiveOfAnotherSizeIsAnError) {
  TypeParam::run([](Communicator& c) {
    const int to = (c.rank() + 1) % c.size(), from = (c.rank() + c.size() - 1) % c.size();
    for (const int n : {3, 5}) {
      std::vector<int> sent(4), got(static_cast<std::size_t>(n));
      Request receive = c.receive(bytes_of(got), from, 9);
      Request send = c.send(bytes_of(sent), to, 9);
      const std::string error = comm_error_of([&] { receive->wait(); });
      EXPECT_SAYS(error, std::to_string(4 * n) + " bytes");
      EXPECT_SAYS(error, "(tag 9)");
      wait(send);
    }
  });
}

TYPED_TEST_P(CommunicatorSuite, ArgumentsThatDoNotFit) {
  TypeParam::run([](Communicator& c) {
    const auto n = static_cast<std::size_t>(c.size());
    std::vector<int> four(4), all(4 * n + 1);
    std::vector<std::size_t> none(n), one(n);
    one[0] = 1;
    EXPECT_SAYS(comm_error_of([&] { (void)c.send({}, c.size(), 0); }), "there is no rank");
    EXPECT_SAYS(comm_error_of([&] { (void)c.receive({}, -1, 0); }), "there is no rank -1");
    EXPECT_SAYS(comm_error_of([&] { (void)c.send({}, 0, 32768); }), "32768");
    EXPECT_SAYS(comm_error_of([&] { (void)c.receive({}, 0, -1); }), "the tag is -1");
    EXPECT_SAYS(comm_error_of([&] { (void)c.broadcast({}, c.size()); }), "there is no rank");
    EXPECT_SAYS(comm_error_of([&] { (void)c.all_gather(bytes_of(four), bytes_of(all)); }),
                "16 bytes");
    EXPECT_SAYS(comm_error_of([&] { (void)c.all_to_all({}, one, {}, none); }), "send");
    EXPECT_SAYS(comm_error_of([&] { (void)c.all_to_all({}, none, {}, one); }), "receive");
    EXPECT_SAYS(comm_error_of([&] { (void)c.all_to_all({}, {}, {}, none); }), "0 sizes");
    EXPECT_SAYS(comm_error_of([&] { (void)c.split(-1, 0); }), "color");
  });
}

// Nobody sends: the wait ends by the bound, and its message says who waited for whom and for what.
TYPED_TEST_P(CommunicatorSuite, AWaitThatIsTooLongNamesRankHostStepAndOperation) {
  TypeParam::run([](Communicator& c) {
    c.set_progress(12, "dispatch");
    c.set_timeout(std::chrono::milliseconds(60));
    const int from = (c.rank() + 1) % c.size();
    {
      std::vector<int> got(4);
      Request request = c.receive(bytes_of(got), from, 77);
      EXPECT_FALSE(request->test());
      const std::string error = comm_error_of([&] { wait(request); });
      EXPECT_SAYS(error, " on " + c.host(c.rank()) + ", step 12, dispatch: ");
      EXPECT_SAYS(error, "16 bytes from rank ");
      EXPECT_SAYS(error, " on " + c.host(from) + " (tag 77)");
      EXPECT_SAYS(error, "60 ms");
      EXPECT_THROW(request->wait(), RankFailure);  // and stays failed
    }
    c.set_timeout(std::chrono::milliseconds(0));
    c.set_progress(0, "");
    c.barrier();
  });
}

TYPED_TEST_P(CommunicatorSuite, AnIdleWaitHasNoBound) {
  TypeParam::run([](Communicator& c) {
    const std::chrono::milliseconds bound(60);
    c.set_timeout(bound);
    const int to = (c.rank() + 1) % c.size(), from = (c.rank() + c.size() - 1) % c.size();
    const std::vector<int> sent = letter(c.rank(), to, 5);
    std::vector<int> got(sent.size());
    Request receive = c.receive(bytes_of(got), from, 2);
    std::thread sender([&] {
      std::this_thread::sleep_for(2 * bound);
      Request send = c.send(bytes_of(sent), to, 2);
      send->wait_idle();
    });
    receive->wait_idle();
    receive->wait_idle();  // complete already
    sender.join();
    c.set_timeout(std::chrono::milliseconds(0));
    EXPECT_EQ(got, letter(from, c.rank(), 5));
  });
}

REGISTER_TYPED_TEST_SUITE_P(CommunicatorSuite, MessagesOfATagArriveInTheOrderSent,
                            TestBecomesTrueWithoutWaiting, AllToAllWithSizesOfEachPair,
                            SeveralCollectivesUnderWayAtOnce, EmptyBuffersAreMessagesToo,
                            SplitOrdersByKeyAndKeepsMessagesApart, BytesForOtherRanksAreCounted,
                            BigMessages, AReceiveOfAnotherSizeIsAnError, ArgumentsThatDoNotFit,
                            AWaitThatIsTooLongNamesRankHostStepAndOperation, AnIdleWaitHasNoBound);

}  // namespace minke::test
