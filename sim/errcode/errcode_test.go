package errcode

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheCodesHaveNitroCLIsNumbers(t *testing.T) {
	// Some of each stretch of nitro-cli's table: a code too many or too few would shift those behind it.
	for code, text := range map[Code]string{
		MissingArgument: "E01", InvalidArgument: "E03", Socket: "E11", Serde: "E17", FileOperationFailure: "E19",
		InsufficientCPUs: "E22", InsufficientMemoryRequested: "E26", IoctlFailure: "E29", IoctlEnclaveStartFailure: "E33",
		EIFParsing: "E35", EnclaveBootFailure: "E36", EnclaveProcessConnectionFailure: "E39", EnclaveConsoleConnectionFailure: "E44",
		EIFBuilding: "E48", BlobsPathNotSet: "E52", Hasher: "E57", EnclaveNaming: "E58", EIFSignatureChecker: "E59", EIFSigning: "E60",
	} {
		require.Equal(t, text, code.String())
		got, err := Parse(text)
		require.NoError(t, err)
		require.Equal(t, code, got)
	}
}

func TestEveryCodeIsExplained(t *testing.T) {
	require.Len(t, explanations, int(last)+1)
	for code, e := range explanations {
		require.NotEmpty(t, e.Title, Code(code))
		require.NotEmpty(t, e.Text, Code(code))
	}
}

func TestACodeThatIsNoneIsRefused(t *testing.T) {
	for _, text := range []string{"", "E", "E61", "E255", "E-1", "F01", "E0x1", "EE1"} {
		_, err := Parse(text)
		require.Error(t, err, text)
		require.Equal(t, InvalidArgument, Of(err))
	}
}

func TestTheCodeNearestToTheCauseCounts(t *testing.T) {
	cause := errors.New("cause")
	err := Wrap(EnclaveBootFailure, fmt.Errorf("outer: %w", Wrap(EIFParsing, cause)))
	require.Equal(t, EIFParsing, Of(err))
	require.Equal(t, "outer: cause", err.Error())
	require.ErrorIs(t, err, cause)
	require.NoError(t, Wrap(EIFParsing, nil))
	require.Zero(t, Of(cause))
}
