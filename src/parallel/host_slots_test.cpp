#include "parallel/host_slots.h"

#include "base/test_directory.h"

namespace minke {
namespace {

using Hosts = std::vector<HostSlots>;
using HostSlotsTest = TestDirectory;

TEST_F(HostSlotsTest, AreReadAsMpirunReadsThem) {
  EXPECT_EQ(parse_hosts("a:2,10.0.0.7:12,c"), (Hosts{{"a", 2}, {"10.0.0.7", 12}, {"c", 1}}));
  put(dir / "hosts", "# the rack\na slots=2\n\n  b   # one rank\nc\tslots=3\n");
  const Hosts hosts = read_hostfile(dir / "hosts");
  EXPECT_EQ(hosts, (Hosts{{"a", 2}, {"b", 1}, {"c", 3}}));
  EXPECT_EQ(total_slots(hosts), 6);
  EXPECT_EQ(to_string(hosts), "a:2,b:1,c:3");
}

TEST_F(HostSlotsTest, OtherTextIsRefused) {
  for (const char* text : {"", "a,", ",a", "a:", ":2", "a:0", "a:-1", "a:2x", "a:70000", "a,a:2"})
    EXPECT_THROW(parse_hosts(text), ConfigError) << text;
  for (const char* text : {"", "# none\n", "a 2\n", "a slots=\n", "a slots=x\n", "a slots=2 b\n"}) {
    put(dir / "hosts", text);
    EXPECT_THROW(read_hostfile(dir / "hosts"), ConfigError) << text;
  }
  EXPECT_THROW(read_hostfile(dir / "none"), IoError);
  put(dir / "hosts", "a slots=2\nb slot=2\n");
  EXPECT_NE(error_of([&] { read_hostfile(dir / "hosts"); }).find(":2: 'b slot=2'"),
            std::string::npos);
}

}  // namespace
}  // namespace minke
