#include "parallel/job_status.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

TEST(JobStatus, SaysWhatMayBeTriedAgain) {
  EXPECT_EQ(end_of(0), JobEnd::Done);
  EXPECT_EQ(end_of(130), JobEnd::Stopped);
  for (const int status : {1, 2}) EXPECT_EQ(end_of(status), JobEnd::Refused) << status;
  for (const int status : {3, 75, 134, 137, 139, 143, 205, 255})
    EXPECT_EQ(end_of(status), JobEnd::Failed) << status;
}

TEST(JobStatus, HasWords) {
  EXPECT_EQ(words_of_status(137), "a process was ended by signal 9 (Killed)");
  EXPECT_EQ(words_of_status(75), "a rank waited for another one in vain");
  EXPECT_EQ(words_of_status(205), "a host was lost (mpirun's status 205)");
  EXPECT_EQ(words_of_status(3), "the job ended with status 3");
}

}  // namespace
}  // namespace minke
